//! Where the broker is and who we are: from the command line, then `VIGIL_FLEET_*`, then `fleet.toml`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;
use url::Url;
use vigil_protocol::topic;

use crate::failure::Failure;

const FILE_BYTES: u64 = 64 * 1024;

/// The settings of one of the three places.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Layer {
    /// The broker: mqtts://host[:port], or mqtt:// with --allow-plaintext
    #[arg(long, global = true, value_name = "URL", help_heading = "Connection")]
    pub broker: Option<String>,
    /// Allow mqtt://, which anybody on the way can read and change
    #[arg(long, global = true, help_heading = "Connection")]
    pub allow_plaintext: bool,
    /// PEM certificates to trust instead of the system's
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    pub ca: Option<PathBuf>,
    /// Our client certificate, PEM
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    pub cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    pub key: Option<PathBuf>,
    /// If the broker wants one
    #[arg(long, global = true, value_name = "NAME", help_heading = "Connection")]
    pub username: Option<String>,
    /// A file that holds the password and nothing else
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    pub password_file: Option<PathBuf>,
    /// What every topic begins with [default: vigil/v1]
    #[arg(long, global = true, value_name = "PREFIX", help_heading = "Connection")]
    pub prefix: Option<String>,
    /// The tenant whose devices we command
    #[arg(long, global = true, value_name = "NAME", help_heading = "Connection")]
    pub tenant: Option<String>,
    /// The key that signs commands: PKCS#8 PEM, from 'vigil-fleet key new'
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    pub operator_key: Option<PathBuf>,
}

impl Layer {
    /// What the environment says.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let text = |name: &str| variable(&format!("VIGIL_FLEET_{name}")).filter(|value| !value.is_empty());
        let path = |name: &str| text(name).map(PathBuf::from);
        Self {
            broker: text("BROKER"),
            allow_plaintext: matches!(text("ALLOW_PLAINTEXT").as_deref(), Some("1" | "true" | "yes")),
            ca: path("CA"),
            cert: path("CERT"),
            key: path("KEY"),
            username: text("USERNAME"),
            password_file: path("PASSWORD_FILE"),
            prefix: text("PREFIX"),
            tenant: text("TENANT"),
            operator_key: path("OPERATOR_KEY"),
        }
    }

    /// What the file says; relative paths in it start from its directory. A missing file says nothing, unless it was
    /// `asked_for`.
    pub fn from_file(file: &Path, asked_for: bool) -> Result<Self, Failure> {
        let wrong = |what: &dyn std::fmt::Display| Failure::Usage(format!("{}: {what}", file.display()));
        let Some(bytes) = vigil_durable::read_bounded(file, FILE_BYTES).map_err(|error| wrong(&error))?
        else {
            return if asked_for { Err(wrong(&"no such file")) } else { Ok(Self::default()) };
        };
        let text = String::from_utf8(bytes).map_err(|_| wrong(&"not UTF-8"))?;
        let mut layer: Self = toml::from_str(&text).map_err(|error| wrong(&error))?;
        let directory = file.parent().unwrap_or(Path::new("."));
        let paths = [
            &mut layer.ca,
            &mut layer.cert,
            &mut layer.key,
            &mut layer.password_file,
            &mut layer.operator_key,
        ];
        for path in paths.into_iter().flatten() {
            *path = directory.join(&*path);
        }
        Ok(layer)
    }

    /// This layer, and what `below` says where it says nothing.
    pub fn over(self, below: Self) -> Self {
        Self {
            broker: self.broker.or(below.broker),
            allow_plaintext: self.allow_plaintext || below.allow_plaintext,
            ca: self.ca.or(below.ca),
            cert: self.cert.or(below.cert),
            key: self.key.or(below.key),
            username: self.username.or(below.username),
            password_file: self.password_file.or(below.password_file),
            prefix: self.prefix.or(below.prefix),
            tenant: self.tenant.or(below.tenant),
            operator_key: self.operator_key.or(below.operator_key),
        }
    }

    /// The topic prefix, checked.
    pub fn prefix(&self) -> Result<&str, Failure> {
        let prefix = self.prefix.as_deref().unwrap_or(topic::DEFAULT_PREFIX);
        topic::check_prefix(prefix).map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(prefix)
    }

    /// The tenant, checked.
    pub fn tenant(&self) -> Result<&str, Failure> {
        match self.tenant.as_deref() {
            Some(tenant) if topic::is_name(tenant) => Ok(tenant),
            Some(tenant) => Err(Failure::Usage(topic::TopicError::Name(tenant.to_owned()).to_string())),
            None => Err(missing("tenant", "--tenant NAME", "VIGIL_FLEET_TENANT")),
        }
    }

    /// The signing key's file.
    pub fn operator_key(&self) -> Result<&Path, Failure> {
        self.operator_key
            .as_deref()
            .ok_or_else(|| missing("operator_key", "--operator-key FILE", "VIGIL_FLEET_OPERATOR_KEY"))
    }

    /// The broker, checked: nothing secret goes over plaintext.
    pub fn broker(&self) -> Result<Broker, Failure> {
        let text =
            self.broker.as_deref().ok_or_else(|| missing("broker", "--broker URL", "VIGIL_FLEET_BROKER"))?;
        let broker = Broker::parse(text).ok_or_else(|| {
            Failure::Usage(format!("broker = {text:?}: use mqtts://host or mqtts://host:port and no more"))
        })?;
        if !broker.tls && !self.allow_plaintext {
            return Err(Failure::Usage(
                "mqtt:// is refused without --allow-plaintext; use mqtts://".to_owned(),
            ));
        }
        if !broker.tls && self.password_file.is_some() {
            return Err(Failure::Usage("a password is not sent over mqtt://; use mqtts://".to_owned()));
        }
        if self.cert.is_some() != self.key.is_some() {
            return Err(Failure::Usage("cert and key go together: give both or neither".to_owned()));
        }
        Ok(broker)
    }
}

fn missing(key: &str, flag: &str, variable: &str) -> Failure {
    Failure::Usage(format!(
        "no {key} is set: give {flag}, set {variable}, or write '{key} = \"...\"' in ~/.config/vigil/fleet.toml"
    ))
}

/// The directory of the operator's own files: `$XDG_CONFIG_HOME/vigil` or `~/.config/vigil`.
pub fn directory(variable: impl Fn(&str) -> Option<String>) -> PathBuf {
    let base = variable("XDG_CONFIG_HOME").filter(|path| path.starts_with('/')).map_or_else(
        || PathBuf::from(variable("HOME").unwrap_or_else(|| ".".to_owned())).join(".config"),
        PathBuf::from,
    );
    base.join("vigil")
}

/// Where the broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Over TLS.
    pub tls: bool,
    /// A name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl Broker {
    fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let (tls, port) = match url.scheme() {
            "mqtts" => (true, 8883),
            "mqtt" => (false, 1883),
            _ => return None,
        };
        let bare = url.username().is_empty()
            && url.password().is_none()
            && matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none();
        let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
        (bare && !host.is_empty()).then(|| Self { tls, host, port: url.port().unwrap_or(port) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_broker(url: &str) -> Layer {
        Layer { broker: Some(url.to_owned()), ..Layer::default() }
    }

    #[test]
    fn the_command_line_goes_over_the_environment_and_that_over_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("fleet.toml");
        std::fs::write(&file, "broker = 'mqtts://file'\ntenant = 'file'\nprefix = 'file'\nca = 'ca.crt'\n")
            .unwrap();
        let file = Layer::from_file(&file, true).unwrap();
        let environment = Layer::from_environment(|name| match name {
            "VIGIL_FLEET_BROKER" => Some("mqtts://environment".to_owned()),
            "VIGIL_FLEET_TENANT" => Some("environment".to_owned()),
            _ => None,
        });
        let all = with_broker("mqtts://flag").over(environment).over(file);
        assert_eq!(all.broker().unwrap().host, "flag");
        assert_eq!((all.tenant().unwrap(), all.prefix().unwrap()), ("environment", "file"));
        assert_eq!(all.ca.unwrap(), directory.path().join("ca.crt"));
    }

    #[test]
    fn plaintext_needs_a_word_and_never_carries_a_password() {
        assert_eq!(with_broker("mqtt://host").broker().unwrap_err().exit_code(), 2);
        let mut layer = Layer { allow_plaintext: true, ..with_broker("mqtt://host") };
        assert_eq!(layer.broker().unwrap(), Broker { tls: false, host: "host".into(), port: 1883 });
        layer.password_file = Some("secret".into());
        assert!(layer.broker().is_err());
    }

    #[test]
    fn an_address_with_a_password_a_path_or_another_scheme_is_refused() {
        for url in
            ["mqtts://a:b@host", "mqtts://host/x", "https://host", "host", "mqtts://", "mqtts://host?x"]
        {
            assert!(with_broker(url).broker().is_err(), "{url}");
        }
        assert_eq!(with_broker("mqtts://[::1]:1").broker().unwrap().host, "::1");
    }

    #[test]
    fn an_unknown_key_in_the_file_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("fleet.toml");
        std::fs::write(&file, "brooker = 'x'\n").unwrap();
        assert!(Layer::from_file(&file, true).unwrap_err().to_string().contains("brooker"));
        let none = directory.path().join("none.toml");
        assert!(Layer::from_file(&none, true).is_err() && Layer::from_file(&none, false).is_ok());
    }
}
