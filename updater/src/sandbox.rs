//! The filter that keeps `vigil-updaterd` off the network and its power within its task: from its installation on, this
//! process and whatever it starts can make sockets of the family AF_UNIX only, and neither mount, load kernels or modules,
//! enter namespaces nor reach into other processes.

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
        (libc::SYS_process_vm_readv, vec![]),
        (libc::SYS_process_vm_writev, vec![]),
        (libc::SYS_pidfd_getfd, vec![]),
        (libc::SYS_bpf, vec![]),
        (libc::SYS_perf_event_open, vec![]),
        (libc::SYS_mount, vec![]),
        (libc::SYS_umount2, vec![]),
        (libc::SYS_move_mount, vec![]),
        (libc::SYS_open_tree, vec![]),
        (libc::SYS_fsopen, vec![]),
        (libc::SYS_fsmount, vec![]),
        (libc::SYS_mount_setattr, vec![]),
        (libc::SYS_pivot_root, vec![]),
        (libc::SYS_setns, vec![]),
        (libc::SYS_unshare, vec![]),
        (libc::SYS_kexec_load, vec![]),
        #[cfg(not(target_arch = "arm"))]
        (libc::SYS_kexec_file_load, vec![]),
        (libc::SYS_init_module, vec![]),
        (libc::SYS_finit_module, vec![]),
        (libc::SYS_delete_module, vec![]),
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
            let script = "import ctypes, errno, sys\nlibc = ctypes.CDLL(None, use_errno=True)\n\
                for call in ('mount', 'umount2', 'setns', 'unshare', 'init_module', 'delete_module', 'pidfd_getfd'):\n  \
                number = {'mount': (165, 40), 'umount2': (166, 39), 'setns': (308, 268), 'unshare': (272, 97), 'init_module': (175, 105), \
                'delete_module': (176, 106), 'pidfd_getfd': (438, 438)}[call][int(sys.argv[1] == 'aarch64')]\n  \
                if libc.syscall(number, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != errno.EPERM: raise SystemExit(call)";
            let arguments = ["-c", script, std::env::consts::ARCH];
            let status = std::process::Command::new("python3").args(arguments).status().unwrap();
            assert!(status.success(), "a child may do what the updater never does");
        })
        .join()
        .unwrap();
    }
}
