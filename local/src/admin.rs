//! `tidegate admin`: who administers this installation. What the operator asks for goes to the running server, through a
//! socket in the data folder that only the folder's owner may open; where none runs, it is done in the folder itself.

use std::io::{self, BufRead as _, ErrorKind, IsTerminal as _, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidegate_auth::{Command, CreateAdministrator, Deps, Password, RemoveAdministrator};
use tidegate_http::Problem;
use tidegate_store::embedded::{DATABASE_FILE, OpenError};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, sleep, timeout};
use zeroize::Zeroizing;

use crate::parts::{Installation, Parts};
use crate::settings::{Admin, AdminAction};

const SOCKET: &str = "admin.sock";
/// What is asked is far shorter; a list of a thousand administrators isn't.
const MAX_REQUEST_BYTES: u64 = 8 * 1024;
const MAX_ANSWER_BYTES: u64 = 1024 * 1024;
/// How long the server waits for a request to come, and for its answer to be taken.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait for a server that is just starting, or for another `tidegate admin`.
const FOLDER_TIMEOUT: Duration = Duration::from_secs(15);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// The server's end of the socket.
pub(crate) struct Console {
    listener: UnixListener,
    owner: u32,
}

/// Removes the socket's file when it is dropped.
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(
                component = "local",
                error = &error as &dyn std::error::Error,
                "admin.sock can't be removed"
            );
        }
    }
}

/// What the server answers: one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// It is done.
    Done {
        /// What a [`Command`] answers.
        result: Value,
        /// Where people reach the server; none where none runs.
        url: Option<String>,
    },
    /// It isn't.
    Refused {
        /// Why, for people.
        message: String,
        /// Whether it needs a password, and had none.
        needs_password: bool,
    },
}

impl Console {
    /// Makes the socket in the data folder, which belongs to this process: what lies there from before is of nobody. `None`
    /// where the folder's path is too long for one. The file is to be held until the process ends.
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Option<(Self, SocketFile)>> {
        let path = folder.join(SOCKET);
        if !fits(&path) {
            tracing::warn!(
                component = "local",
                "the data folder's path is too long for a socket, so `tidegate admin` works only while this is stopped"
            );
            return Ok(None);
        }
        let failed = || format!("can't make {}", path.display());
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).with_context(failed),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&path).with_context(failed)?;
        let file = SocketFile(path.clone());
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).with_context(failed)?;
        let owner = std::fs::metadata(&path).with_context(failed)?.uid();
        Ok(Some((Self { listener, owner }, file)))
    }

    /// Does what is asked for. `url`: where people reach the process.
    pub(crate) async fn serve(self, deps: Deps, url: String) {
        let url: Arc<str> = url.into();
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (deps, url, owner) = (deps.clone(), Arc::clone(&url), self.owner);
                    tokio::spawn(async move {
                        if let Err(error) = serve_one(stream, owner, &deps, &url).await {
                            failed(&error);
                        }
                    });
                }
                Err(error) => {
                    failed(&error.into());
                    sleep(POLL).await;
                }
            }
        }
    }
}

fn failed(error: &anyhow::Error) {
    let error = &**error as &dyn std::error::Error;
    tracing::warn!(component = "local", error, "a request through admin.sock failed");
}

async fn serve_one(stream: UnixStream, owner: u32, deps: &Deps, url: &str) -> anyhow::Result<()> {
    // The file's mode says the same, but not in the moment before it is set.
    let peer = stream.peer_cred()?.uid();
    if peer != owner && peer != 0 {
        bail!("user {peer} may not ask");
    }
    let (reader, mut writer) = stream.into_split();
    let line = timeout(REQUEST_TIMEOUT, read_line(reader, MAX_REQUEST_BYTES)).await.context("no request came")??;
    let answer = match serde_json::from_slice(&line) {
        Ok(asked) => execute(deps, asked, Some(url)).await?,
        // The error's text may repeat what was sent.
        Err(_) => Answer::Refused {
            message: "the server doesn't understand this `tidegate`; use the same version".to_owned(),
            needs_password: false,
        },
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    timeout(REQUEST_TIMEOUT, writer.write_all(&line)).await.context("the answer wasn't taken")??;
    Ok(())
}

/// Whether a path fits into a socket's address: 107 bytes on Linux.
fn fits(path: &Path) -> bool {
    SocketAddr::from_pathname(path).is_ok()
}

/// A line without its end, of up to `max` bytes.
async fn read_line(stream: impl tokio::io::AsyncRead + Unpin, max: u64) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let mut line = Zeroizing::new(Vec::new());
    BufReader::new(stream.take(max)).read_until(b'\n', &mut line).await?;
    if line.pop() != Some(b'\n') {
        bail!("the line is cut off, or over {max} bytes");
    }
    Ok(line)
}

async fn execute(deps: &Deps, asked: Command, url: Option<&str>) -> anyhow::Result<Answer> {
    let without_password = matches!(&asked, Command::CreateAdministrator(CreateAdministrator { password: None, .. }));
    match Box::pin(tidegate_auth::command(deps, asked)).await {
        Ok(result) => Ok(Answer::Done { result: serde_json::to_value(result)?, url: url.map(str::to_owned) }),
        Err(problem) => {
            let wrong = |error: &tidegate_model::FieldError| error.pointer.as_str() == "/password";
            // Other fields are wrong too: then a password helps nothing.
            let needs_password = without_password && problem.errors().iter().all(wrong) && !problem.errors().is_empty();
            Ok(Answer::Refused { message: told(&problem), needs_password })
        }
    }
}

/// A problem at a terminal, where there is no body: `password: expected …`.
fn told(problem: &Problem) -> String {
    let errors = problem.errors().iter();
    let fields: Vec<_> =
        errors.map(|error| format!("{}: {}", error.pointer.as_str().trim_start_matches('/'), error.detail)).collect();
    if fields.is_empty() { problem.to_string() } else { fields.join("\n") }
}

/// Does what a person at the terminal asks for.
pub(crate) async fn run(Admin { data_dir, action }: Admin) -> anyhow::Result<()> {
    if !data_dir.join(DATABASE_FILE).exists() {
        bail!(
            "there is no Tidegate in {}: give the folder that `tidegate serve` has its data in as --data-dir",
            data_dir.display()
        );
    }
    match action {
        AdminAction::Create { email, name } => create(&data_dir, email, name).await,
        AdminAction::List => list(&data_dir).await,
        AdminAction::Remove { email } => remove(&data_dir, email).await,
    }
}

/// What the operator is told of somebody.
#[derive(Debug, Deserialize)]
struct Administrator {
    email: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    since: String,
    #[serde(default)]
    email_verified: bool,
    #[serde(default)]
    account_created: bool,
    #[serde(default)]
    changed: bool,
}

#[derive(Debug, Deserialize)]
struct Administrators {
    items: Vec<Administrator>,
}

async fn create(folder: &Path, email: String, name: Option<String>) -> anyhow::Result<()> {
    let ask_for = |password| {
        let (email, name) = (email.clone(), name.clone());
        Command::CreateAdministrator(CreateAdministrator { email, password, name })
    };
    // Whose account exists needs no password: it stays.
    let mut answer = ask(folder, ask_for(None)).await?;
    if let Answer::Refused { needs_password: true, .. } = answer {
        answer = ask(folder, ask_for(Some(read_password(&email)?))).await?;
    }
    let (administrator, url) = done::<Administrator>(answer)?;
    let Administrator { email, account_created, changed, email_verified, .. } = administrator;
    match (account_created, changed) {
        (true, _) => say(&format!("{email} has an account now, and administers this Tidegate.")),
        (false, true) => {
            say(&format!("{email} administers this Tidegate now. The account was there already; its password stays."));
            if !email_verified {
                say(
                    "Whoever made it never proved to read mail at this address: make sure that it is the right person's.",
                );
            }
        }
        (false, false) => say(&format!("{email} administered this Tidegate already; nothing was changed.")),
    }
    match url {
        Some(url) => say(&format!("Sign in at {url}")),
        None => say(&format!(
            "No Tidegate runs on this folder. Start it (`tidegate serve --data-dir {}`) and sign in at the address that it \
             tells.",
            folder.display()
        )),
    }
    Ok(())
}

async fn list(folder: &Path) -> anyhow::Result<()> {
    let (Administrators { items }, _) = done(ask(folder, Command::ListAdministrators {}).await?)?;
    if items.is_empty() {
        say("Nobody administers this Tidegate. Make somebody: tidegate admin create --email ADDRESS");
    }
    for Administrator { email, name, since, .. } in items {
        say(&format!("{email}  {name}  since {since}"));
    }
    Ok(())
}

async fn remove(folder: &Path, email: String) -> anyhow::Result<()> {
    let asked = Command::RemoveAdministrator(RemoveAdministrator { email });
    let (Administrator { email, changed, .. }, _) = done(ask(folder, asked).await?)?;
    match changed {
        true => say(&format!("{email} administers this Tidegate no more. The account stays.")),
        false => say(&format!("{email} doesn't administer this Tidegate; nothing was changed.")),
    }
    Ok(())
}

fn done<T: serde::de::DeserializeOwned>(answer: Answer) -> anyhow::Result<(T, Option<String>)> {
    match answer {
        Answer::Done { result, url } => Ok((serde_json::from_value(result).context("read the answer")?, url)),
        Answer::Refused { message, .. } => bail!("nothing was changed: {message}"),
    }
}

/// Asks the server that runs on the folder. Where none does, does it here; the folder's lock tells.
async fn ask(folder: &Path, asked: Command) -> anyhow::Result<Answer> {
    let request = Zeroizing::new(serde_json::to_vec(&asked)?);
    let path = folder.join(SOCKET);
    let deadline = Instant::now() + FOLDER_TIMEOUT;
    loop {
        if fits(&path) {
            match UnixStream::connect(&path).await {
                Ok(stream) => return ask_server(stream, &request).await,
                // No server, or one that died and left its socket.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {}
                Err(error) => return Err(error).with_context(|| format!("can't open {}", path.display())),
            }
        }
        let parts = match Parts::open_folder(folder, Installation::closed()).await {
            Ok(parts) => parts,
            Err(error) if matches!(error.downcast_ref(), Some(OpenError::InUse { .. })) => {
                if !fits(&path) {
                    bail!(
                        "a Tidegate runs on {}, and the folder's path is too long for a socket to reach it by: stop it, do \
                         this again, and start it",
                        folder.display()
                    );
                }
                if Instant::now() > deadline {
                    return Err(error.context("whoever has the folder doesn't answer through admin.sock"));
                }
                sleep(POLL).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        let deps = parts.auth("", &parts.limiter())?;
        return execute(&deps, serde_json::from_slice(&request)?, None).await;
    }
}

async fn ask_server(stream: UnixStream, request: &[u8]) -> anyhow::Result<Answer> {
    let (reader, mut writer) = stream.into_split();
    let asked = async {
        writer.write_all(request).await?;
        writer.write_all(b"\n").await?;
        anyhow::Ok(serde_json::from_slice(&read_line(reader, MAX_ANSWER_BYTES).await?)?)
    };
    let answer = timeout(ANSWER_TIMEOUT, asked).await.context("the server doesn't answer")?;
    answer.context("the server stopped before it answered; see `tidegate admin list`, and try again")
}

/// A new password: asked for twice without showing it, or the first line of standard input where that is no terminal.
fn read_password(email: &str) -> anyhow::Result<Password> {
    if io::stdin().is_terminal() {
        let first = Password::new(rpassword::prompt_password(format!("Password for {email}: "))?);
        let second = Password::new(rpassword::prompt_password("The same again: ")?);
        if first != second {
            bail!("nothing was changed: the two passwords differ");
        }
        return Ok(first);
    }
    let mut line = Zeroizing::new(String::with_capacity(4_096));
    io::stdin().lock().take(4_096).read_line(&mut line).context("read the password from standard input")?;
    Ok(Password::new(line.trim_end_matches(['\n', '\r'])))
}

#[expect(clippy::print_stdout, reason = "this is what a person at the terminal reads")]
fn say(text: &str) {
    println!("{text}");
}
