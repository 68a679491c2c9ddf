//! A function's process, started as Lambda starts it.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use tokio::process::{Child, Command};

use super::runtime_api::{Answer, RuntimeApi};

/// Longer than Lambda itself waits for a function to start.
const DEADLINE: Duration = Duration::from_secs(12);

/// What Lambda puts into a function's environment
/// (<https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html>).
const LAMBDA: &[(&str, &str)] = &[
    ("_HANDLER", "bootstrap"),
    ("AWS_ACCESS_KEY_ID", "ASIAIOSFODNN7EXAMPLE"),
    ("AWS_DEFAULT_REGION", "us-east-1"),
    ("AWS_EXECUTION_ENV", "AWS_Lambda_provided.al2023"),
    ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
    ("AWS_LAMBDA_FUNCTION_NAME", "tidegate-bench"),
    ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
    ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
    ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/tidegate-bench"),
    ("AWS_LAMBDA_LOG_STREAM_NAME", "2026/11/21/[$LATEST]0123456789abcdef0123456789abcdef"),
    ("AWS_REGION", "us-east-1"),
    ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
    ("AWS_SESSION_TOKEN", "IQoJb3JpZ2luX2VjEXAMPLETOKEN"),
    ("LANG", "en_US.UTF-8"),
    ("PATH", "/usr/local/bin:/usr/bin/:/bin:/opt/bin"),
    ("TZ", ":UTC"),
];

/// What `template.yaml` puts there; every function gets all of it here.
const TIDEGATE: &[(&str, &str)] = &[
    ("TIDEGATE_BLOBS_BUCKET", "tidegate-blobs"),
    ("TIDEGATE_CONFIG_TABLE", "tidegate-config"),
    ("TIDEGATE_DEAD_LETTER_QUEUE_ARN", "arn:aws:sqs:us-east-1:123456789012:tidegate-dead-letters"),
    ("TIDEGATE_DEAD_LETTER_QUEUE_URL", "https://sqs.us-east-1.amazonaws.com/123456789012/tidegate-dead-letters"),
    ("TIDEGATE_HISTORY_TABLE", "tidegate-history"),
    ("TIDEGATE_KMS_KEY_ARN", "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"),
    ("TIDEGATE_LOG", "info"),
    ("TIDEGATE_MAIL_FROM", "Tidegate <no-reply@example.com>"),
    ("TIDEGATE_PUBLIC_URL", "https://abc123.execute-api.us-east-1.amazonaws.com"),
    ("TIDEGATE_RATE_LIMITS", "api=1000"),
    ("TIDEGATE_REGISTRATION", "closed"),
    ("TIDEGATE_ROOT_CERTIFICATES", "amazon"),
    ("TIDEGATE_RUN_CONCURRENCY", "100"),
    ("TIDEGATE_RUN_QUEUE_URL", "https://sqs.us-east-1.amazonaws.com/123456789012/tidegate-runs"),
    ("TIDEGATE_SCHEDULE_GROUP", "tidegate"),
    ("TIDEGATE_SCHEDULE_ROLE_ARN", "arn:aws:iam::123456789012:role/tidegate-schedules"),
    ("TIDEGATE_WORKER_CONCURRENCY", "10"),
    ("TIDEGATE_WORKER_TIMEOUT", "300"),
];

/// A process that waits for its first event; killed when this is dropped.
pub(crate) struct Bootstrap {
    child: Child,
    api: RuntimeApi,
    output: File,
    /// From before the process was made to its first request for an event.
    pub(crate) took: Duration,
}

impl Bootstrap {
    /// Starts the program and waits until it asks for its first event.
    ///
    /// # Errors
    /// It ends, reports that it can't start, or doesn't ask in time; the error holds what it has printed.
    pub(crate) async fn start(program: &Path) -> anyhow::Result<Self> {
        let api = RuntimeApi::start().await?;
        let output = tempfile::tempfile()?;
        let mut command = Command::new(program);
        command.env_clear().envs(LAMBDA.iter().chain(TIDEGATE).copied()).envs(runtime_api(api.address()));
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?).kill_on_drop(true);
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("start {}", program.display()))?;
        let mut bootstrap = Self { child, api, output, took: Duration::ZERO };
        let asked = Self::within(&mut bootstrap.child, bootstrap.api.asked()).await;
        bootstrap.took = asked.map_err(|error| bootstrap.said(error))? - started;
        Ok(bootstrap)
    }

    /// Hands an event to the function and waits for its answer.
    ///
    /// # Errors
    /// It ends, reports a failure, or doesn't answer in time; the error holds what it has printed.
    pub(crate) async fn invoke(&mut self, payload: Bytes) -> anyhow::Result<Answer> {
        Self::within(&mut self.child, self.api.invoke(payload)).await.map_err(|error| self.said(error))
    }

    /// The process's id.
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("the process has ended")
    }

    /// Kills the process and waits until it is gone.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("kill the process")
    }

    async fn within<T>(child: &mut Child, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        tokio::select! {
            // What it has said before it ended comes first.
            biased;
            done = work => done,
            ended = child.wait() => bail!("the process ended ({})", ended?),
            () = tokio::time::sleep(DEADLINE) => bail!("nothing came from the process within {DEADLINE:?}"),
        }
    }

    /// The error with the end of what the process has printed.
    fn said(&self, error: anyhow::Error) -> anyhow::Error {
        const TAIL: u64 = 4_000;
        let read = || -> std::io::Result<String> {
            let length = self.output.metadata()?.len();
            let mut bytes = vec![0; usize::try_from(length.min(TAIL)).unwrap_or_default()];
            std::os::unix::fs::FileExt::read_exact_at(&self.output, &mut bytes, length.saturating_sub(TAIL))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        match read() {
            Ok(text) if text.is_empty() => anyhow::anyhow!("{error:#}; it printed nothing"),
            Ok(text) => anyhow::anyhow!("{error:#}; it printed:\n{}", text.trim_end()),
            Err(unread) => anyhow::anyhow!("{error:#}; what it printed can't be read: {unread}"),
        }
    }
}

fn runtime_api(address: SocketAddr) -> [(&'static str, String); 1] {
    [("AWS_LAMBDA_RUNTIME_API", address.to_string())]
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_process_that_ends_is_an_error_with_what_it_printed() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("bootstrap");
        std::fs::write(&program, "#!/bin/sh\necho \"no table named; $HOME\" >&2\nexit 3\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        let started = tokio::task::LocalSet::new().run_until(Bootstrap::start(&program)).await;
        let error = format!("{:#}", started.err().unwrap());
        // Nothing is inherited, so there is no home.
        assert_eq!(error, "the process ended (exit status: 3); it printed:\nno table named;");
    }
}
