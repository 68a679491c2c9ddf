//! A `tidegate serve` process on a data folder.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How the process says where it listens.
const LISTENS: &str = "Tidegate listens on ";
const START_DEADLINE: Duration = Duration::from_secs(60);

/// A running process; it is killed when this is dropped.
pub struct Server {
    child: Child,
    url: String,
}

impl Server {
    /// Starts the binary on a free port and waits until it listens. Data lies in `folder/data`; the JSON log is
    /// appended to `folder/log.jsonl`. Calls to this machine's loopback addresses are allowed.
    ///
    /// # Errors
    /// The binary can't be started, ends by itself, or doesn't say within a minute where it listens.
    pub async fn start(binary: &Path, folder: &Path) -> anyhow::Result<Self> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log.jsonl"))?;
        let mut child = Command::new(binary)
            .args(["serve", "--port", "0", "--egress-allow", "127.0.0.0/8", "--data-dir"])
            .arg(folder.join("data"))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", binary.display()))?;
        let stderr = child.stderr.take().context("the process has no standard error")?;
        let mut lines = BufReader::new(stderr).lines();
        let mut said = Vec::new();
        let listening = async {
            while let Some(line) = lines.next_line().await? {
                if let Some((_, url)) = line.split_once(LISTENS) {
                    return Ok(url.split_whitespace().next().unwrap_or_default().to_owned());
                }
                said.push(line);
            }
            bail!("the process ended before it listened; it said:\n{}", said.join("\n"))
        };
        let url = tokio::time::timeout(START_DEADLINE, listening).await.context("wait until the process listens")??;
        // Its pipe must not fill up; what it says later (a panic) belongs in the test's own output.
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                #[expect(clippy::print_stderr, reason = "only tests and the benchmark start a server")]
                {
                    eprintln!("{line}");
                }
            }
        });
        Ok(Self { child, url })
    }

    /// Where it listens: `http://127.0.0.1:8080`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The process's id.
    ///
    /// # Errors
    /// The process has ended.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("the process has ended")
    }

    /// The most memory that it has had so far, in bytes (Linux).
    ///
    /// # Errors
    /// The process has ended.
    pub fn peak_memory(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB"));
        Ok(peak.context("the kernel doesn't tell the peak memory")?.trim().parse::<u64>()? * 1024)
    }

    /// Sends it a signal by its short name, such as `TERM`.
    ///
    /// # Errors
    /// The process has ended.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        // The shell's own `kill`: there is one everywhere.
        let sent =
            std::process::Command::new("sh").arg("-c").arg(format!("kill -s {name} {}", self.pid()?)).status()?;
        ensure!(sent.success(), "SIG{name} could not be sent");
        Ok(())
    }

    /// Waits until it has ended by itself; how it did.
    ///
    /// # Errors
    /// It hasn't by the deadline; then it is killed.
    pub async fn ended(mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        let ended = tokio::time::timeout(deadline, self.child.wait()).await;
        Ok(ended.context("wait until the process ends")??)
    }

    /// Kills it as `kill -9` does and waits until it is gone.
    ///
    /// # Errors
    /// The process had ended before.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("kill the process")
    }
}
