//! Measures the embedded queue on this disk: sends a second, and sends with their receive and delete, at 1, 8 and 32
//! concurrent callers. `cargo run --profile fast -p tidegate-platform --example queue_throughput`

#![expect(clippy::print_stdout, reason = "a measuring tool")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tidegate_model::TenantId;
use tidegate_platform::queue::{EmbeddedQueue, EmbeddedSettings, OutgoingMessage};
use tidegate_platform::{Clock, PortError, Queue};

const MESSAGES: usize = 20_000;
const BODY_BYTES: usize = 600;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir_in(".")?;
    println!("{MESSAGES} messages of {BODY_BYTES} bytes    sends/s    send + receive + delete/s    CPU/message");
    for callers in [1, 8, 32] {
        let settings = EmbeddedSettings { visibility_timeout: Duration::from_secs(330), max_receive_count: 25 };
        let path = folder.path().join(format!("{callers}.db"));
        let queue = EmbeddedQueue::open(&path, settings, Clock::system())?;
        let sends = send(&queue, callers).await?;
        drain(&queue, callers).await?;
        let cpu = cpu_time()?;
        let start = Instant::now();
        let (sent, drained) = tokio::join!(send(&queue, callers), drain(&queue, callers));
        sent.and(drained.map(|()| 0.0))?;
        let whole = MESSAGES as f64 / start.elapsed().as_secs_f64();
        let cpu_us = (cpu_time()? - cpu).as_micros() as f64 / MESSAGES as f64;
        println!("c={callers:<31}{sends:>10.0}{whole:>29.0}{cpu_us:>12.1} us");
    }
    Ok(())
}

async fn send(queue: &EmbeddedQueue, callers: usize) -> Result<f64, PortError> {
    let start = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move {
                let tenant = TenantId::new(Timestamp::UNIX_EPOCH, [1; 10]);
                let body = "x".repeat(BODY_BYTES);
                for _ in 0..MESSAGES / callers {
                    queue.send(OutgoingMessage::new(tenant, body.clone())).await?;
                }
                Ok::<_, PortError>(())
            })
        })
        .collect();
    for task in tasks {
        task.await.map_err(|error| PortError::new("join a sender", error))??;
    }
    Ok(MESSAGES as f64 / start.elapsed().as_secs_f64())
}

/// Two receivers, as the worker's pollers; deletions run beside each other.
async fn drain(queue: &EmbeddedQueue, callers: usize) -> Result<(), PortError> {
    let left = Arc::new(AtomicUsize::new(MESSAGES / callers * callers));
    let tasks: Vec<_> = (0..2)
        .map(|_| {
            let (queue, left) = (queue.clone(), Arc::clone(&left));
            tokio::spawn(async move {
                while left.load(Ordering::Relaxed) > 0 {
                    let mut deletions = Vec::new();
                    for message in queue.receive(10, Duration::from_millis(200)).await? {
                        let queue = queue.clone();
                        deletions.push(tokio::spawn(async move { queue.delete(&message.receipt).await }));
                    }
                    for deletion in deletions {
                        deletion.await.map_err(|error| PortError::new("join a deletion", error))??;
                        left.fetch_sub(1, Ordering::Relaxed);
                    }
                }
                Ok::<_, PortError>(())
            })
        })
        .collect();
    for task in tasks {
        task.await.map_err(|error| PortError::new("join a receiver", error))??;
    }
    Ok(())
}

/// The process's CPU time, from `/proc/self/stat` (fields 14 and 15, in hundredths of a second).
fn cpu_time() -> Result<Duration, Box<dyn std::error::Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or("no process name")?.1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}
