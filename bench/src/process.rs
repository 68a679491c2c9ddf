//! What a process has used, from Linux's `/proc` (proc(5)).

use std::time::Duration;

use anyhow::Context;

/// Clock ticks a second in `/proc`: fixed at 100 for user space on every architecture that Linux runs Rust on.
const TICKS_PER_SECOND: u64 = 100;

/// CPU time and memory of a process up to now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// User and system time of all its threads.
    pub(crate) cpu: Duration,
    /// Memory in use, in MB (10^6 bytes).
    pub(crate) resident_mb: f64,
    /// The most memory it ever used, in MB.
    pub(crate) peak_mb: f64,
}

impl Usage {
    /// Reads what the process has used.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let stat = read(pid, "stat")?;
        // The second field, the program's name, may hold spaces: count from the parenthesis that ends it.
        let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
        let ticks = |index: usize| -> anyhow::Result<u64> {
            Ok(fields.split_whitespace().nth(index).context("stat is too short")?.parse()?)
        };
        let status = read(pid, "status")?;
        let megabytes = |name: &str| -> anyhow::Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line in status")?;
            let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
            Ok(kibibytes * 1024.0 / 1e6)
        };
        Ok(Self {
            cpu: Duration::from_millis((ticks(11)? + ticks(12)?) * 1_000 / TICKS_PER_SECOND),
            resident_mb: megabytes("VmRSS:")?,
            peak_mb: megabytes("VmHWM:")?,
        })
    }
}

fn read(pid: u32, name: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(format!("/proc/{pid}/{name}")).with_context(|| format!("read {name} of process {pid}"))
}
