//! Against real sockets of loopback.

use std::net::TcpListener;

use socket2::{Domain, Socket, Type};

use super::*;

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An address at which nobody answers, neither yes nor no: its queue is full, and the kernel drops what comes. The
/// sockets keep it so.
fn black_hole() -> (SocketAddr, Vec<Socket>) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut sockets = vec![listener];
    for _ in 0..4 {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        let _ = client.connect(&address.into());
        sockets.push(client);
    }
    (address, sockets)
}

#[tokio::test]
async fn an_address_at_which_nobody_answers_does_not_hold_up_the_next() {
    let (hole, _sockets) = black_hole();
    let alone = first_of(Race::new([hole]));
    assert!(tokio::time::timeout(Duration::from_millis(300), alone).await.is_err(), "it is no black hole");
    let (_listener, address) = listener();
    let stream = first_of(Race::new([hole, address])).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), address);
}

#[tokio::test]
async fn a_refused_address_is_followed_by_the_next_at_once() {
    let (closed, refusing) = listener();
    drop(closed);
    let (_listener, address) = listener();
    let begun = std::time::Instant::now();
    let stream = first_of(Race::new([refusing, address])).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), address);
    assert!(begun.elapsed() < Duration::from_millis(250), "it waited for its turn");
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_told_from_an_address_that_does_not_answer() {
    let step = Cell::new(Step::Tcp);
    let error = connect("no-such-host.invalid", 8883, &step).await.unwrap_err().to_string();
    assert!(error.starts_with("the name no-such-host.invalid does not resolve"), "{error}");
    assert_eq!(step.get(), Step::Name);
    let (closed, refusing) = listener();
    drop(closed);
    let error = connect("127.0.0.1", refusing.port(), &step).await.unwrap_err().to_string();
    assert!(
        error.contains(&format!("no connection to {refusing}: 127.0.0.1: Connection refused")),
        "{error}"
    );
    assert_eq!(step.get(), Step::Tcp);
}
