//! `tidegate admin` beside a running server, and in a folder that none runs on.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tidegate_scenarios::{Api, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::Command;

const BINARY: &str = env!("CARGO_BIN_EXE_tidegate");
const PASSWORD: &str = "correct horse battery";
/// Generous: what counts is that it ends at all.
const DEADLINE: Duration = Duration::from_secs(120);

struct Said {
    success: bool,
    out: String,
    err: String,
}

/// Runs `tidegate admin …` on `folder/data`, with this on its standard input.
async fn admin(folder: &Path, arguments: &[&str], stdin: &str) -> Said {
    let mut command = Command::new(BINARY);
    command.arg("admin").args(arguments).arg("--data-dir").arg(folder.join("data"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    // Whoever needs no password doesn't read it.
    let _broken_pipe = child.stdin.take().unwrap().write_all(stdin.as_bytes()).await;
    let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await.unwrap().unwrap();
    let said = Said {
        success: output.status.success(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    };
    assert!(!said.out.contains(PASSWORD) && !said.err.contains(PASSWORD), "{}{}", said.out, said.err);
    said
}

impl Said {
    #[track_caller]
    fn done(self, expected: &str) {
        assert!(self.success && self.out.contains(expected), "{:?}\n{}\n{}", expected, self.out, self.err);
    }

    #[track_caller]
    fn refused(self, expected: &str) {
        assert!(!self.success && self.err.contains(expected), "{:?}\n{}\n{}", expected, self.out, self.err);
    }
}

async fn start(folder: &Path) -> Server {
    Server::start(Path::new(BINARY), folder).await.unwrap()
}

async fn stop(server: Server) {
    server.signal("TERM").unwrap();
    assert!(server.ended(DEADLINE).await.unwrap().success());
}

async fn administers(server: &Server, email: &str) {
    let api = Api::log_in(server.url(), email, PASSWORD).await.unwrap();
    api.get("/api/admin/platform/clients").await.unwrap();
}

#[tokio::test]
async fn the_first_administrator_is_made_while_the_server_runs() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path()).await;
    let socket = folder.path().join("data/admin.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    admin(folder.path(), &["list"], "").await.done("Nobody administers");

    let create = ["create", "--email", "Root@example.com", "--name", "Root"];
    admin(folder.path(), &create, &format!("{PASSWORD}\n")).await.done(&format!("Sign in at {}", server.url()));
    administers(&server, "root@example.com").await;
    admin(folder.path(), &create, "").await.done("already; nothing was changed");
    admin(folder.path(), &["list"], "").await.done("root@example.com  Root  since 2");
    admin(folder.path(), &["remove", "--email", "root@example.com"], "").await.refused("only administrator");

    let api = Api::register(server.url()).await.unwrap();
    let email = api.get("/api/auth/me").await.unwrap()["user"]["email"].as_str().unwrap().to_owned();
    // Its account stays as it is, so that no password is asked for.
    let said = admin(folder.path(), &["create", "--email", &email], "").await;
    assert!(said.out.contains("never proved"), "{}", said.out);
    said.done("its password stays");
    admin(folder.path(), &["remove", "--email", "root@example.com"], "").await.done("no more");

    stop(server).await;
    assert!(!socket.exists());
    let log = std::fs::read_to_string(folder.path().join("log.jsonl")).unwrap();
    assert!(log.contains("the operator made a platform administrator") && !log.contains(PASSWORD));
}

#[tokio::test]
async fn where_no_server_runs_it_is_done_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    stop(start(folder.path()).await).await;
    let create = ["create", "--email", "root@example.com"];
    let said = admin(folder.path(), &create, PASSWORD).await;
    assert!(said.out.contains("root@example.com has an account now"), "{}", said.out);
    said.done("No Tidegate runs on this folder");
    admin(folder.path(), &["list"], "").await.done("root@example.com");
    let server = start(folder.path()).await;
    administers(&server, "root@example.com").await;

    // A server that died leaves its socket; it hinders neither.
    server.kill().await.unwrap();
    assert!(folder.path().join("data/admin.sock").exists());
    admin(folder.path(), &["create", "--email", "two@example.com"], PASSWORD).await.done("two@example.com");
    let server = start(folder.path()).await;
    admin(folder.path(), &["list"], "").await.done("two@example.com");
    administers(&server, "two@example.com").await;
}

#[tokio::test]
async fn two_at_once_both_have_their_way() {
    let folder = tempfile::tempdir().unwrap();
    stop(start(folder.path()).await).await;
    let create = async |email: &str| admin(folder.path(), &["create", "--email", email], PASSWORD).await.done(email);
    tokio::join!(create("a@example.com"), create("b@example.com"));
    let server = start(folder.path()).await;
    tokio::join!(create("c@example.com"), create("d@example.com"));
    for email in ["a@example.com", "b@example.com", "c@example.com", "d@example.com"] {
        administers(&server, email).await;
    }
}

#[tokio::test]
async fn another_folder_is_not_made_into_a_tidegate() {
    let folder = tempfile::tempdir().unwrap();
    admin(folder.path(), &["create", "--email", "root@example.com"], PASSWORD).await.refused("there is no Tidegate in");
    assert!(!folder.path().join("data").exists());
    std::fs::create_dir(folder.path().join("data")).unwrap();
    admin(folder.path(), &["list"], "").await.refused("there is no Tidegate in");
    assert_eq!(std::fs::read_dir(folder.path().join("data")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_password_is_never_short_empty_or_an_argument() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path()).await;
    let create = ["create", "--email", "root@example.com"];
    for (arguments, password, expected) in [
        (&create[..], "too short\n", "password: expected 10 to 256 characters"),
        (&create[..], "", "password: expected 10 to 256 characters"),
        (&["create", "--email", "root"][..], PASSWORD, "email: expected an email address"),
        (&["create", "--email", "root@example.com", "--password", "x"][..], "", "--password"),
    ] {
        admin(folder.path(), arguments, password).await.refused(expected);
    }
    admin(folder.path(), &["list"], "").await.done("Nobody administers");
    Api::log_in(server.url(), "root@example.com", "").await.err().unwrap();
}

#[tokio::test]
async fn who_asks_nothing_or_too_much_hinders_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let _server = start(folder.path()).await;
    let connect = async || UnixStream::connect(folder.path().join("data/admin.sock")).await.unwrap();
    let _idle = connect().await;
    for (asked, expected) in [
        ("x".repeat(8 * 1024), ""),
        ("{}\n".to_owned(), "refused"),
        ("{\"list_administrators\":{}}\n".to_owned(), "done"),
    ] {
        let mut stream = connect().await;
        stream.write_all(asked.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // What is cut off isn't answered; the connection may break with what was left unread.
        let _reset = tokio::time::timeout(DEADLINE, stream.read_to_string(&mut answer)).await.unwrap();
        assert_eq!(answer.is_empty(), expected.is_empty(), "{answer}");
        assert!(answer.contains(expected), "{answer}");
    }
    admin(folder.path(), &["list"], "").await.done("Nobody administers");
}

#[tokio::test]
async fn a_folder_too_deep_for_a_socket_is_changed_while_no_server_runs() {
    let scratch = tempfile::tempdir().unwrap();
    let folder: PathBuf = scratch.path().join("x".repeat(120));
    std::fs::create_dir(&folder).unwrap();
    let server = start(&folder).await;
    admin(&folder, &["create", "--email", "root@example.com"], PASSWORD).await.refused("too long for a socket");
    stop(server).await;
    admin(&folder, &["create", "--email", "root@example.com"], PASSWORD).await.done("root@example.com");
}
