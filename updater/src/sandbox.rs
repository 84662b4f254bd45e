//! The filter that keeps `vigil-updaterd` off the network: from its installation on, this process and whatever it
//! starts can make sockets of the family AF_UNIX only.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// Why the process is not confined.
#[derive(Debug, thiserror::Error)]
#[error("the socket filter could not be installed: {0}; this kernel may lack CONFIG_SECCOMP_FILTER")]
pub struct SandboxError(String);

/// Installs the filter for this thread and all that come from it. There is no way back.
pub fn confine() -> Result<(), SandboxError> {
    let program = program().map_err(|error| SandboxError(error.to_string()))?;
    seccompiler::apply_filter(&program).map_err(|error| SandboxError(error.to_string()))
}

fn program() -> Result<BpfProgram, seccompiler::BackendError> {
    let not_unix = || {
        let family = rustix::net::AddressFamily::UNIX.as_raw();
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, u64::from(family))
            .and_then(|condition| SeccompRule::new(vec![condition]))
    };
    // An empty list of rules means: always. io_uring makes sockets without passing through socket(2).
    let rules = [
        (libc::SYS_socket, vec![not_unix()?]),
        (libc::SYS_socketpair, vec![not_unix()?]),
        (libc::SYS_io_uring_setup, vec![]),
        (libc::SYS_io_uring_enter, vec![]),
        (libc::SYS_io_uring_register, vec![]),
        (libc::SYS_ptrace, vec![]),
        (libc::SYS_process_vm_writev, vec![]),
        (libc::SYS_bpf, vec![]),
    ];
    let filter = SeccompFilter::new(
        rules.into_iter().collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        TargetArch::try_from(std::env::consts::ARCH)?,
    )?;
    filter.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_confined_thread_and_its_children_make_unix_sockets_only() {
        std::thread::spawn(|| {
            assert!(UdpSocket::bind("127.0.0.1:0").is_ok());
            confine().unwrap();
            assert!(UnixStream::pair().is_ok());
            for error in [
                UdpSocket::bind("127.0.0.1:0").map(drop).unwrap_err(),
                TcpListener::bind("[::1]:0").map(drop).unwrap_err(),
            ] {
                assert_eq!(error.raw_os_error(), Some(libc::EPERM));
            }
            let script = "import socket\nfor family in (socket.AF_INET, socket.AF_NETLINK, socket.AF_PACKET):\n  \
                          try: socket.socket(family, socket.SOCK_RAW)\n  except PermissionError: continue\n  raise SystemExit(1)";
            let status = std::process::Command::new("python3").args(["-c", script]).status().unwrap();
            assert!(status.success(), "a child made a network socket");
        })
        .join()
        .unwrap();
    }
}
