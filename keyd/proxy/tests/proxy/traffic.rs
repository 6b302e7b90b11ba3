//! What passes through, and how connections end.

use std::time::Duration;

use peers::openssl::{self, Issued, Subject};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::support::{CLIENT, PATIENCE, World};

/// Long enough for what must not happen to have happened.
const MOMENT: Duration = Duration::from_millis(300);

/// What `openssl s_client` prints when it asks for a page with this certificate.
async fn ask(world: &World, address: &str, own: &Issued) -> String {
    let arguments = format!(
        "s_client -connect {address} -cert {} -key {} -CAfile {} -verify_return_error -ign_eof",
        own.certificate.display(),
        own.key.display(),
        world.root.certificate.display()
    );
    let mut child = openssl::spawn(&arguments).unwrap();
    // A client that was refused may be gone already.
    let _ = child.stdin.as_mut().unwrap().write_all(b"GET / HTTP/1.0\r\n\r\n").await;
    let output = timeout(PATIENCE, child.wait_with_output()).await.expect("in time").unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[tokio::test]
async fn openssl_gets_a_page_from_a_plain_http_server() {
    let world = World::new().await;
    let proxy = world.proxy("").await;
    proxy.has_identity(1).await;
    let serve = async {
        let mut stream = BufReader::new(world.arrival().await);
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        assert_eq!(line, "GET / HTTP/1.0\r\n");
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nwelcome to the field\n").await.unwrap();
        stream.shutdown().await.unwrap();
    };
    let (said, ()) = tokio::join!(ask(&world, &proxy.address, &world.client), serve);
    for expected in ["welcome to the field", "group: X25519MLKEM768", "type: mldsa65", "return code: 0 (ok)"]
    {
        assert!(said.contains(expected), "{expected:?} is not in: {said}");
    }
    proxy.logged("connected address=127.0.0.1:", 1).await;
    proxy.logged(&format!("spiffe_id={CLIENT} received=18 "), 1).await;
}

#[tokio::test]
async fn another_spiffe_id_is_kept_from_the_server_and_logged_with_the_rule() {
    let world = World::new().await;
    let proxy = world.proxy("").await;
    proxy.has_identity(1).await;
    let other = world.issue(&Subject::leaf("other", "spiffe://field.example/other"));
    let said = ask(&world, &proxy.address, &other).await;
    assert!(said.contains("alert"), "{said}");
    proxy
        .logged("spiffe_id=\"spiffe://field.example/other\" rule=it is not among the allowed SPIFFE IDs", 1)
        .await;
    assert!(timeout(MOMENT, world.upstream.accept()).await.is_err(), "nobody reached the server");
}

#[tokio::test]
async fn a_client_that_has_finished_sending_is_still_answered() {
    let world = World::new().await;
    let proxy = world.proxy("").await;
    proxy.has_identity(1).await;
    let mut session = world.connect(&proxy).await.unwrap();
    // More than any buffer on the way holds.
    let question = vec![b'?'; 1 << 20];
    let serve = async {
        let mut stream = world.arrival().await;
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        stream.write_all(format!("{} bytes", got.len()).as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    };
    let talk = async {
        session.stream.write_all(&question).await.unwrap();
        session.stream.shutdown().await.unwrap();
        let mut answer = String::new();
        session.stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let (answer, ()) = tokio::join!(talk, serve);
    assert_eq!(answer, "1048576 bytes");
}

#[tokio::test]
async fn without_a_server_behind_the_client_sees_a_clean_end() {
    let world = World::new().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = nobody.local_addr().unwrap();
    drop(nobody);
    let proxy = world.proxy_before(upstream, "").await;
    proxy.has_identity(1).await;
    let mut session = world.connect(&proxy).await.unwrap();
    // rustls reports an end without close_notify as an error.
    let end = timeout(PATIENCE, session.stream.read(&mut [0; 16])).await.expect("in time");
    assert_eq!(end.unwrap(), 0);
    proxy.logged("no server behind", 1).await;
    proxy.logged(&format!("upstream={upstream}"), 1).await;
}

#[tokio::test]
async fn a_server_that_breaks_off_is_no_clean_end() {
    let world = World::new().await;
    let proxy = world.proxy("").await;
    proxy.has_identity(1).await;
    let mut session = world.connect(&proxy).await.unwrap();
    let mut upstream = world.arrival().await;
    upstream.write_all(b"half an answ").await.unwrap();
    session.stream.read_exact(&mut [0; 12]).await.unwrap();
    // A reset, as from a process that was killed with data unread.
    upstream.set_zero_linger().unwrap();
    drop(upstream);
    let end = timeout(PATIENCE, session.stream.read(&mut [0; 16])).await.expect("in time");
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_their_turn() {
    let world = World::new().await;
    let proxy = world.proxy("connections = 1").await;
    proxy.has_identity(1).await;
    let first = world.connect(&proxy).await.unwrap();
    let _first_behind = world.arrival().await;
    let second = world.connect(&proxy);
    tokio::pin!(second);
    assert!(timeout(MOMENT, &mut second).await.is_err(), "there is no slot");
    proxy.logged("as many connections as there may be", 1).await;
    drop((first, _first_behind));
    timeout(PATIENCE, second).await.expect("in time").unwrap();
}

#[tokio::test]
async fn a_peer_that_says_nothing_gives_its_slot_back() {
    let world = World::new().await;
    let proxy = world.proxy("connections = 1\nhandshake_timeout_ms = 200").await;
    proxy.has_identity(1).await;
    let mut silent = TcpStream::connect(&proxy.address).await.unwrap();
    let ended = timeout(PATIENCE, silent.read(&mut [0; 16])).await.expect("in time");
    assert_eq!(ended.unwrap(), 0);
    proxy.logged("the handshake did not end within 200 ms", 1).await;
    world.connect(&proxy).await.unwrap();
}

#[tokio::test]
async fn an_idle_connection_ends() {
    let world = World::new().await;
    let proxy = world.proxy("idle_timeout_ms = 300").await;
    proxy.has_identity(1).await;
    let mut session = world.connect(&proxy).await.unwrap();
    let mut upstream = world.arrival().await;
    assert_eq!(timeout(PATIENCE, upstream.read(&mut [0; 16])).await.expect("in time").unwrap(), 0);
    assert!(timeout(PATIENCE, session.stream.read(&mut [0; 16])).await.expect("in time").is_err());
    proxy.logged("idle for too long", 1).await;
}

#[tokio::test]
async fn sigterm_lets_open_connections_end_and_nobody_new_in() {
    let world = World::new().await;
    let mut proxy = world.proxy("").await;
    proxy.has_identity(1).await;
    let session = world.connect(&proxy).await.unwrap();
    let mut upstream = world.arrival().await;
    proxy.terminate();
    proxy.logged("stopping connections=1", 1).await;
    assert!(TcpStream::connect(&proxy.address).await.is_err(), "nobody new");
    let mut stream = BufReader::new(session.stream);
    stream.write_all(b"still there?\n").await.unwrap();
    let mut buffer = [0; 13];
    upstream.read_exact(&mut buffer).await.unwrap();
    upstream.write_all(b"yes\n").await.unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    assert_eq!(line, "yes\n");
    drop((stream, upstream));
    assert!(proxy.ended().await);
}

#[tokio::test]
async fn a_connection_that_outlasts_the_drain_is_cut_off() {
    let world = World::new().await;
    let mut proxy = world.proxy("drain_timeout_ms = 200").await;
    proxy.has_identity(1).await;
    let _session = world.connect(&proxy).await.unwrap();
    let _upstream = world.arrival().await;
    proxy.terminate();
    assert!(proxy.ended().await);
    proxy.logged("connections are cut off connections=1", 1).await;
}
