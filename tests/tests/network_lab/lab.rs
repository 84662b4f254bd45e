//! Three namespaces in a row: device, router, partners. All of it is gone when the lab is dropped.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde::Deserialize;

/// `meet.test`.
pub(super) const MEET: &str = "10.77.1.10";
/// `files.test`.
pub(super) const FILES: &str = "10.77.1.11";

const ROLES: [&str; 3] = ["device", "router", "partner"];
const DEADLINE: Duration = Duration::from_secs(20);

/// How a partner's server behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Server {
    #[default]
    Works,
    /// Its port is closed.
    Closed,
    /// Its certificate is of an authority that the device does not trust.
    WrongAuthority,
}

pub(super) struct Lab {
    prefix: String,
    directory: tempfile::TempDir,
    trusted: Issuer<'static, KeyPair>,
    servers: Vec<Child>,
}

impl Lab {
    /// Everything but the servers, and working.
    pub(super) fn new(number: usize) -> Self {
        let (trusted, pem) = authority("Lab");
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.crt"), pem).unwrap();
        let prefix = format!("vigil-{}-{number}-", std::process::id());
        let lab = Self { prefix, directory, trusted, servers: Vec::new() };
        for role in ROLES {
            ip(&["netns", "add", &lab.namespace(role)]);
            lab.run(&[role, "ip", "link", "set", "lo", "up"]);
        }
        lab.connect("device", "eth0", "router", "lan0");
        lab.connect("router", "wan0", "partner", "eth0");
        let addresses = [
            ("device", "eth0", "10.77.0.2/24"),
            ("router", "lan0", "10.77.0.1/24"),
            ("router", "wan0", "10.77.1.1/24"),
            ("partner", "eth0", "10.77.1.10/24"),
            ("partner", "eth0", "10.77.1.11/24"),
        ];
        for (role, interface, address) in addresses {
            lab.run(&[role, "ip", "address", "add", address, "dev", interface]);
        }
        lab.run(&["device", "ip", "route", "add", "default", "via", "10.77.0.1"]);
        lab.run(&["partner", "ip", "route", "add", "default", "via", "10.77.1.1"]);
        lab.run(&["router", "sysctl", "-qw", "net.ipv4.ip_forward=1"]);
        lab.run(&["device", "sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647"]);
        lab.wait(&["device", "ip", "-o", "link", "show", "eth0"], "state UP");
        lab
    }

    fn namespace(&self, role: &str) -> String {
        format!("{}{role}", self.prefix)
    }

    fn connect(&self, role: &str, interface: &str, peer_role: &str, peer: &str) {
        let (namespace, peer_namespace) = (self.namespace(role), self.namespace(peer_role));
        let add = ["link", "add", interface, "netns", &namespace, "type", "veth"];
        ip(&[&add[..], &["peer", "name", peer, "netns", &peer_namespace]].concat());
        self.run(&[role, "ip", "link", "set", interface, "up"]);
        self.run(&[peer_role, "ip", "link", "set", peer, "up"]);
    }

    /// Runs a command in the namespace that its first word names.
    pub(super) fn run<S: AsRef<str>>(&self, command: &[S]) -> String {
        let mut words = vec!["netns".to_owned(), "exec".to_owned()];
        words.extend(self.in_namespace(command));
        ip(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn in_namespace<S: AsRef<str>>(&self, command: &[S]) -> Vec<String> {
        let (role, rest) = command.split_first().unwrap();
        assert!(ROLES.contains(&role.as_ref()), "{:?} is none of {ROLES:?}", role.as_ref());
        let namespace = self.namespace(role.as_ref());
        std::iter::once(namespace).chain(rest.iter().map(|word| word.as_ref().to_owned())).collect()
    }

    /// Repeats a command until it shows what is waited for.
    pub(super) fn wait<S: AsRef<str>>(&self, command: &[S], contains: &str) {
        let began = Instant::now();
        loop {
            let seen = self.run(command);
            if seen.contains(contains) {
                return;
            }
            assert!(began.elapsed() < DEADLINE, "waited for {contains:?} in vain, saw {seen}");
        }
    }

    /// A resolver on the router.
    pub(super) fn start_dns(&mut self, arguments: Option<&[String]>) {
        let both = ["--address=/meet.test/10.77.1.10", "--address=/files.test/10.77.1.11"].map(str::to_owned);
        let mut command: Vec<String> = ["router", "dnsmasq", "--keep-in-foreground", "--log-facility=-"]
            .into_iter()
            .chain(["--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file=", "--user=root"])
            .chain(["--bind-interfaces", "--listen-address=10.77.0.1"])
            .map(str::to_owned)
            .collect();
        command.extend(arguments.unwrap_or(&both).iter().cloned());
        self.start(&command, "started");
    }

    /// A TLS server with a certificate for `name`.
    pub(super) fn start_partner(&mut self, name: &str, address: &str, server: Server) {
        let stranger;
        let issuer = match server {
            Server::Closed => return,
            Server::Works => &self.trusted,
            Server::WrongAuthority => {
                stranger = authority("Interceptor").0;
                &stranger
            }
        };
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, issuer).unwrap();
        let file = |extension: &str| self.directory.path().join(format!("{name}.{extension}"));
        let (certificate_file, key_file) = (file("crt"), file("key"));
        std::fs::write(&certificate_file, certificate.pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        let command = ["partner", "openssl", "s_server", "-www", "-accept", &format!("{address}:443")]
            .into_iter()
            .chain(["-cert", certificate_file.to_str().unwrap(), "-key", key_file.to_str().unwrap()])
            .map(str::to_owned)
            .collect::<Vec<_>>();
        self.start(&command, "ACCEPT");
    }

    /// Starts a server and waits until it says that it is ready.
    fn start(&mut self, command: &[String], ready: &str) {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let child = Command::new("ip")
            .args(["netns", "exec"])
            .args(self.in_namespace(command))
            .stdin(Stdio::null())
            .stdout(writer.try_clone().unwrap())
            .stderr(writer)
            .spawn()
            .unwrap();
        self.servers.push(child);
        let mut said = String::new();
        for line in BufReader::new(&mut reader).lines() {
            said = format!("{said}{}\n", line.unwrap());
            if said.contains(ready) {
                // A server whose output nobody reads any more must not die of it.
                std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
                return;
            }
        }
        panic!("{command:?} ended before it was ready:\n{said}");
    }

    /// The device's `resolv.conf`, which `ip netns exec` mounts.
    pub(super) fn give_resolvers(&self, text: Option<&str>) {
        let directory = self.etc();
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("resolv.conf"), text.unwrap_or("nameserver 10.77.0.1\n")).unwrap();
    }

    fn etc(&self) -> PathBuf {
        PathBuf::from("/etc/netns").join(self.namespace("device"))
    }

    /// The device's configuration; `CA_FILE` in it becomes the trusted authority's file.
    pub(super) fn write_config(&self, network: Option<&str>) -> PathBuf {
        let both = "[[network.partners]]\nname = \"meet\"\nhost = \"meet.test\"\nca_file = \"CA_FILE\"\n\
             [[network.partners]]\nname = \"files\"\nhost = \"files.test\"\nca_file = \"CA_FILE\"\n";
        let text = format!(
            "[device]\nid = \"bar-1\"\ntenant = \"lab\"\nproduct = \"bar\"\n[broker]\nurl = \"mqtts://meet.test\"\n\
             [network]\nprobe_timeout = \"1s\"\n{}",
            network.unwrap_or(both)
        );
        let ca_file = self.directory.path().join("ca.crt");
        let file = self.directory.path().join("vigil.toml");
        std::fs::write(&file, text.replace("CA_FILE", ca_file.to_str().unwrap())).unwrap();
        file
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
        for role in ROLES {
            // Not `ip`: a panic while panicking would abort and leave the rest behind.
            let _ = Command::new("ip").args(["netns", "delete", &self.namespace(role)]).output();
        }
        let _ = std::fs::remove_dir_all(self.etc());
        let _ = std::fs::remove_dir("/etc/netns");
    }
}

/// Runs `ip`; the lab is useless without it, so a failure is one of the test.
fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().expect("cannot run ip: install iproute2");
    assert!(
        output.status.success(),
        "ip {} failed: {}\nThe network lab needs root and a kernel with network namespaces.",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn authority(name: &str) -> (Issuer<'static, KeyPair>, String) {
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let pem = parameters.self_signed(&key).unwrap().pem();
    (Issuer::new(parameters, key), pem)
}
