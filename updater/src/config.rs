//! `updater.toml`: the image's own settings for the updater. They belong to the slot and nobody changes them
//! remotely. Who the device is stands in `vigil.toml`, once, and is read from there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use vigil_protocol::topic::is_name;

use crate::engine::Policy;

const LIMIT: u64 = 64 * 1024;

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It could not be read.
    #[error("{0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// A key, type or value is wrong.
    #[error("{0}:{1}: {2}")]
    Parse(PathBuf, usize, String),
    /// A value is impossible.
    #[error("{0}: {1}")]
    Value(PathBuf, String),
}

/// The configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The agent's configuration, whose `[device]` says who the device is.
    #[serde(default = "default_agent_config")]
    pub agent_config: PathBuf,
    /// State directory.
    #[serde(default = "default_state")]
    pub state: PathBuf,
    /// The socket.
    #[serde(default = "default_socket")]
    pub socket: PathBuf,
    /// The trust root that came with the image.
    #[serde(default = "default_root")]
    pub root: PathBuf,
    /// The user that `vigild` runs as: its name in /etc/passwd, or a number. Root may always connect.
    #[serde(default)]
    pub courier: Option<String>,
    /// The command that restarts the device.
    #[serde(default = "default_reboot")]
    pub reboot: Vec<String>,
    /// Refuse to run without the filter that keeps this process off the network.
    #[serde(default = "default_true")]
    pub require_seccomp: bool,
    /// The bootloader.
    pub boot: BootConfig,
    /// The two slots.
    pub slots: Vec<SlotConfig>,
    /// The trial.
    #[serde(default)]
    pub trial: TrialConfig,
    /// What is fetched through the courier.
    #[serde(default)]
    pub fetch: FetchConfig,
    /// The gate's checks: commands of the image that exit 0 when all is well.
    #[serde(default)]
    pub gate: Vec<GateCheck>,
    /// What takes an image that is not written to a part of the slot, such as a peripheral's firmware.
    #[serde(default)]
    pub hooks: Vec<HookConfig>,
    /// Where hardware and kernel leave word of how a boot ended.
    #[serde(default)]
    pub evidence: EvidenceConfig,
    /// The hardware watchdog, if this process is to feed it.
    #[serde(default)]
    pub watchdog: Option<WatchdogConfig>,
    /// Who the device is.
    #[serde(skip)]
    pub device: DeviceConfig,
}

/// The bootloader.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum BootConfig {
    /// Variables in a directory.
    File {
        /// The directory.
        directory: PathBuf,
    },
    /// U-Boot's environment.
    Uboot {
        /// Where the environment is.
        #[serde(default = "default_fw_env_config")]
        fw_env_config: PathBuf,
        /// What an environment holds that must be made anew, a `name=value` line each.
        #[serde(default = "default_initial_env")]
        initial_env: PathBuf,
        /// Where the slot that runs is told as `vigil.slot=`.
        #[serde(default = "default_command_line")]
        command_line: PathBuf,
        /// What differs with every boot.
        #[serde(default = "default_boot_id")]
        boot_id: PathBuf,
    },
    /// GRUB's environment block.
    Grub {
        /// The block.
        #[serde(default = "default_grubenv")]
        grubenv: PathBuf,
        /// As for U-Boot.
        #[serde(default = "default_command_line")]
        command_line: PathBuf,
        /// As for U-Boot.
        #[serde(default = "default_boot_id")]
        boot_id: PathBuf,
    },
}

/// One slot.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotConfig {
    /// Its name in the boot variables.
    pub name: String,
    /// For each image of a release, the file or block device it is written to.
    pub parts: std::collections::BTreeMap<String, PathBuf>,
}

/// The trial's times.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrialConfig {
    /// See [`Policy::trial_deadline`].
    #[serde(deserialize_with = "seconds")]
    pub deadline_seconds: Option<Duration>,
    /// See [`Policy::stable`].
    #[serde(deserialize_with = "seconds")]
    pub stable_seconds: Option<Duration>,
    /// See [`Policy::gate_pause`].
    #[serde(deserialize_with = "seconds")]
    pub gate_pause_seconds: Option<Duration>,
    /// See [`Policy::contact_deadline`].
    #[serde(deserialize_with = "seconds")]
    pub contact_seconds: Option<Duration>,
    /// See [`Policy::courier_deadline`].
    #[serde(deserialize_with = "seconds")]
    pub courier_seconds: Option<Duration>,
    /// See [`Policy::quarantine_after`].
    pub quarantine_after: Option<u32>,
}

/// What is done when something cannot be fetched, or is not what was signed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FetchConfig {
    /// See [`Policy::fetch_retries`].
    pub retries: Option<u32>,
    /// See [`Policy::fetch_pause`].
    #[serde(deserialize_with = "seconds")]
    pub pause_seconds: Option<Duration>,
}

/// One check of the gate.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateCheck {
    /// For people and for the recorded cause.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// It fails when it takes longer.
    #[serde(default = "default_check_seconds", deserialize_with = "some_seconds")]
    pub timeout_seconds: Duration,
}

/// A program that takes an image which is not written to a part of the slot.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookConfig {
    /// The image's name in the release's manifest.
    pub image: String,
    /// The program and its arguments. The image is its standard input; exit code 0 means that it was taken.
    pub command: Vec<String>,
    /// The image's bytes at most: it is kept on the data partition.
    pub max_bytes: u64,
    /// The user it runs as, by name or number: one of its own, neither root nor `vigild`'s.
    pub user: String,
    /// It fails when it takes longer.
    #[serde(default = "default_hook_seconds", deserialize_with = "some_seconds")]
    pub timeout_seconds: Duration,
    /// Files and directories that it may write to, such as the peripheral's device. All else it may only read.
    #[serde(default)]
    pub writes: Vec<PathBuf>,
}

/// Where hardware and kernel leave word of how a boot ended.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvidenceConfig {
    /// The directory of the kernel's crash records.
    pub crash_records: PathBuf,
    /// The watchdog's boot status: a number other than 0 when it reset the device.
    pub watchdog_status: PathBuf,
    /// A file in which the board tells the reason of the last reset in words.
    pub reset_reason: Option<PathBuf>,
    /// Words in it that mean a power failure.
    pub power_words: Vec<String>,
}

impl Default for EvidenceConfig {
    fn default() -> Self {
        Self {
            crash_records: "/sys/fs/pstore".into(),
            watchdog_status: "/sys/class/watchdog/watchdog0/bootstatus".into(),
            reset_reason: None,
            power_words: vec!["power".to_owned(), "por".to_owned(), "brownout".to_owned()],
        }
    }
}

/// The hardware watchdog.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchdogConfig {
    /// Its device.
    pub device: PathBuf,
    /// It is fed so often: a third of its time-out at most.
    #[serde(default = "default_feed_seconds", deserialize_with = "some_seconds")]
    pub feed_seconds: Duration,
}

/// Where an image is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A part of a slot, which is there and has the size it has.
    Part(PathBuf),
    /// A file, made for the image.
    Payload {
        /// Its path.
        path: PathBuf,
        /// Its bytes at most.
        max_bytes: u64,
    },
}

/// Who the device is.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct DeviceConfig {
    /// Its id.
    pub id: String,
    /// The tenant it is bound to.
    pub tenant: String,
    /// Its product.
    pub product: String,
    /// Its hardware's revision.
    #[serde(default = "default_revision")]
    pub hardware_revision: String,
    /// Its groups.
    #[serde(default)]
    pub groups: Vec<String>,
}

fn default_agent_config() -> PathBuf {
    "/etc/vigil/vigil.toml".into()
}
fn default_state() -> PathBuf {
    "/var/lib/vigil-updater".into()
}
fn default_socket() -> PathBuf {
    "/run/vigil-updater/updater.sock".into()
}
fn default_root() -> PathBuf {
    "/etc/vigil/root.json".into()
}
fn default_reboot() -> Vec<String> {
    vec!["/usr/bin/systemctl".to_owned(), "reboot".to_owned()]
}
fn default_fw_env_config() -> PathBuf {
    "/etc/fw_env.config".into()
}
fn default_initial_env() -> PathBuf {
    "/etc/u-boot-initial-env".into()
}
fn default_grubenv() -> PathBuf {
    "/boot/efi/EFI/vigil/grubenv".into()
}
fn default_command_line() -> PathBuf {
    "/proc/cmdline".into()
}
fn default_boot_id() -> PathBuf {
    "/proc/sys/kernel/random/boot_id".into()
}
fn default_true() -> bool {
    true
}
fn default_check_seconds() -> Duration {
    Duration::from_secs(30)
}
fn default_hook_seconds() -> Duration {
    Duration::from_secs(300)
}
fn default_feed_seconds() -> Duration {
    Duration::from_secs(10)
}
fn default_revision() -> String {
    "r1".to_owned()
}

fn some_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    if (0.0..=604_800.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(serde::de::Error::custom("expected a number of seconds from 0 to 604800"))
    }
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    some_seconds(deserializer).map(Some)
}

impl Config {
    /// Reads the file and, from the agent's, who the device is.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = read(path)?;
        /// Only this section concerns the updater; the others are vigild's to check.
        #[derive(Deserialize)]
        struct Agent {
            device: DeviceConfig,
        }
        config.device = read::<Agent>(&config.agent_config)?.device;
        config.check().map_err(|what| ConfigError::Value(path.to_owned(), what))?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        if self.slots.len() != 2 || self.slots[0].name == self.slots[1].name {
            return Err("slots: exactly two, of different names, are needed".to_owned());
        }
        for slot in &self.slots {
            if !is_name(&slot.name) || slot.parts.is_empty() {
                return Err(format!("slots: {:?}: a name and at least one part are needed", slot.name));
            }
        }
        if self.slots[0].parts.keys().ne(self.slots[1].parts.keys()) {
            return Err("slots: both must have parts of the same names".to_owned());
        }
        for (what, name) in
            [("id", &self.device.id), ("tenant", &self.device.tenant), ("product", &self.device.product)]
        {
            if !is_name(name) {
                return Err(format!(
                    "{}: [device] {what} = {name:?}: use 1 to 64 of A-Z a-z 0-9 . _ -",
                    self.agent_config.display()
                ));
            }
        }
        for hook in &self.hooks {
            if hook.command.is_empty() {
                return Err(format!("hooks: {:?} has no command", hook.image));
            }
            if hook.user == "root"
                || hook.user.parse() == Ok(0_u32)
                || Some(&hook.user) == self.courier.as_ref()
            {
                return Err(format!(
                    "hooks: {:?}: user: a user of its own is needed, neither root nor the courier: what belongs to these is \
                     within its reach otherwise",
                    hook.image
                ));
            }
            if !is_name(&hook.image) || self.slots[0].parts.contains_key(&hook.image) {
                return Err(format!("hooks: {:?}: a name that no part of a slot has is needed", hook.image));
            }
        }
        if let Some(check) = self.gate.iter().find(|check| check.command.is_empty()) {
            return Err(format!("gate: {:?} has no command", check.name));
        }
        if self.reboot.is_empty() {
            return Err("reboot: a command is needed".to_owned());
        }
        Ok(())
    }

    /// The engine's policy: the defaults, and what the file says otherwise.
    pub fn policy(&self) -> Policy {
        let default = Policy::default();
        Policy {
            trial_deadline: self.trial.deadline_seconds.unwrap_or(default.trial_deadline),
            stable: self.trial.stable_seconds.unwrap_or(default.stable),
            gate_pause: self.trial.gate_pause_seconds.unwrap_or(default.gate_pause),
            contact_deadline: self.trial.contact_seconds.unwrap_or(default.contact_deadline),
            courier_deadline: self.trial.courier_seconds.unwrap_or(default.courier_deadline),
            fetch_retries: self.fetch.retries.unwrap_or(default.fetch_retries),
            fetch_pause: self.fetch.pause_seconds.unwrap_or(default.fetch_pause),
            quarantine_after: self.trial.quarantine_after.unwrap_or(default.quarantine_after),
            hooks: self.hooks.iter().map(|hook| hook.image.clone()).collect(),
            ..default
        }
    }

    /// The slot that does not run.
    pub fn other_slot(&self, running: &str) -> &SlotConfig {
        if self.slots[0].name == running { &self.slots[1] } else { &self.slots[0] }
    }

    /// Where an image of a release is written: a part of the slot or, for a hook, a file on the data partition.
    pub fn place(&self, slot: &str, image: &str) -> Option<Place> {
        if let Some(hook) = self.hooks.iter().find(|hook| hook.image == image) {
            let path = self.state.join("payloads").join(slot).join(image);
            return Some(Place::Payload { path, max_bytes: hook.max_bytes });
        }
        self.slot(slot)?.parts.get(image).cloned().map(Place::Part)
    }

    /// The parts of all slots, each with what it is called.
    pub fn parts(&self) -> Vec<(String, PathBuf)> {
        let of = |slot: &SlotConfig| {
            let named =
                slot.parts.iter().map(|(part, path)| (Self::part_name(&slot.name, part), path.clone()));
            named.collect::<Vec<_>>()
        };
        self.slots.iter().flat_map(of).collect()
    }

    /// What a part is called.
    pub fn part_name(slot: &str, part: &str) -> String {
        format!("part {part:?} of slot {slot}")
    }

    /// A slot by name.
    pub fn slot(&self, name: &str) -> Option<&SlotConfig> {
        self.slots.iter().find(|slot| slot.name == name)
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let error = |error| ConfigError::Read(path.to_owned(), error);
    let bytes = vigil_durable::read_bounded(path, LIMIT).map_err(error)?;
    let bytes = bytes.ok_or_else(|| error(std::io::ErrorKind::NotFound.into()))?;
    let text =
        String::from_utf8(bytes).map_err(|_| ConfigError::Value(path.to_owned(), "not UTF-8".to_owned()))?;
    toml::from_str(&text).map_err(|error| {
        let before = text.as_bytes().iter().take(error.span().map_or(0, |span| span.start));
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        ConfigError::Parse(path.to_owned(), line, error.message().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../packaging/updater.toml");

    /// The example with every key that is commented out put to use.
    fn all_keys() -> String {
        let is_key = |line: &str| {
            line.split_once(" = ").is_some_and(|(key, _)| {
                !key.is_empty() && key.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase())
            })
        };
        let use_it = |line| match str::strip_prefix(line, "#") {
            Some(key) if is_key(key) => key,
            _ => line,
        };
        EXAMPLE.lines().map(use_it).collect::<Vec<_>>().join("\n")
    }

    fn with_a_device(text: &str) -> Config {
        let mut config: Config = toml::from_str(text).unwrap();
        let name = || "x".to_owned();
        config.device =
            DeviceConfig { id: name(), tenant: name(), product: name(), ..DeviceConfig::default() };
        config.check().unwrap();
        config
    }

    #[test]
    fn a_mistake_is_told_with_its_file_and_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("updater.toml");
        for (text, line, what) in [
            ("state = \"/x\"\n\nrebot = []\n", 3, "unknown field `rebot`"),
            ("state = 7\n", 1, "invalid type"),
            (
                "[boot]\nkind = \"file\"\ndirectory = \"/x\"\n[trial]\ndeadline_seconds = -1\n",
                5,
                "0 to 604800",
            ),
            ("state = \n", 1, ""),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Config::load(&path).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("{}:{line}: ", path.display())) && error.contains(what),
                "{error}"
            );
        }
    }

    #[test]
    fn the_example_is_right_and_what_it_comments_out_is_the_default() {
        let (example, all) = (with_a_device(EXAMPLE), with_a_device(&all_keys()));
        let policy = |config: &Config| format!("{:?}", config.policy());
        assert_eq!(policy(&example), policy(&all));
        assert_eq!(policy(&example), format!("{:?}", Policy::default()));
        let paths = |config: &Config| {
            (config.state.clone(), config.socket.clone(), config.root.clone(), config.agent_config.clone())
        };
        assert_eq!(paths(&example), paths(&all));
        assert_eq!((&example.reboot, example.require_seccomp), (&all.reboot, all.require_seccomp));
        assert_eq!(example.gate[0].timeout_seconds, all.gate[0].timeout_seconds);
        assert!(all.trial.deadline_seconds.is_some() && example.trial.deadline_seconds.is_none());
    }

    #[test]
    fn the_example_names_every_kind_of_bootloader_with_its_defaults() {
        for kind in ["uboot", "grub"] {
            // A block of lines that are set in by three blanks.
            let lines = EXAMPLE.lines().skip_while(|line| *line != format!("#   kind = {kind:?}"));
            let keys: Vec<_> = lines.map_while(|line| line.strip_prefix("#   ")).collect();
            assert!(keys.len() > 3, "{keys:?}");
            let shown: BootConfig = toml::from_str(&keys.join("\n")).unwrap();
            assert_eq!(shown, toml::from_str(keys[0]).unwrap());
            let named = format!("{shown:?}").matches(": ").count();
            assert_eq!(keys.len(), 1 + named, "a key is missing: {shown:?}");
        }
    }
}
