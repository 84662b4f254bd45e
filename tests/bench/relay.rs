//! Joins a device node and a Unix socket: how the power-cut bench talks to the updater in an emulated device.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

fn carry(mut from: impl Read, mut to: impl Write) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // Whichever side ends first ends both.
    std::process::exit(1);
}

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(socket), Some(node)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: relay SOCKET NODE");
        std::process::exit(2);
    };
    let socket = UnixStream::connect(socket)?;
    let node = std::fs::File::options().read(true).write(true).open(node)?;
    let (answers, line) = (socket.try_clone()?, node.try_clone()?);
    std::thread::spawn(move || carry(answers, line));
    carry(node, socket);
    Ok(())
}
