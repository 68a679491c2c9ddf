//! The settings of `tidegate serve`: flags, each also an environment variable. Read here and nowhere else.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;
use tidegate_auth::Registration;
use tidegate_model::Limits;

/// The integration platform that runs in your own account, or here.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs everything in one process, with its data in a folder.
    Serve(Serve),
    /// Tells and changes who administers this Tidegate; also while it runs.
    Admin(Admin),
    /// Prints the OpenAPI document.
    Openapi,
    /// Prints the JSON Schema of a workflow's definition.
    Schema,
}

#[derive(Debug, Args)]
pub(crate) struct Admin {
    /// Folder that holds the data.
    #[arg(long, global = true, env = "TIDEGATE_DATA_DIR", default_value = "./data", value_name = "FOLDER")]
    pub(crate) data_dir: PathBuf,

    #[command(subcommand)]
    pub(crate) action: AdminAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AdminAction {
    /// Makes somebody an administrator, and an account where the address has none. Asks for its password, or takes it from
    /// standard input where that is no terminal.
    Create {
        /// Address to sign in with.
        #[arg(long, value_name = "ADDRESS")]
        email: String,
        /// Name of a new account; without it the part before the @.
        #[arg(long)]
        name: Option<String>,
    },
    /// Lists the administrators.
    List,
    /// Ends somebody's administration; the account stays.
    Remove {
        /// Address that the administrator signs in with.
        #[arg(long, value_name = "ADDRESS")]
        email: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Port to listen on; 0 takes a free one.
    #[arg(long, env = "TIDEGATE_PORT", default_value_t = 8080)]
    port: u16,

    /// Address to listen on. Anything but a loopback address closes registration unless --registration says otherwise.
    #[arg(long, env = "TIDEGATE_HOST", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,

    /// Folder that holds all data; made if missing.
    #[arg(long, env = "TIDEGATE_DATA_DIR", default_value = "./data", value_name = "FOLDER")]
    pub(crate) data_dir: PathBuf,

    /// Address ranges that workflows may call although they are not public, such as 127.0.0.1/32.
    #[arg(long, env = "TIDEGATE_EGRESS_ALLOW", value_delimiter = ',', num_args = 1.., value_name = "CIDR", value_parser = range)]
    pub(crate) egress_allow: Vec<IpNet>,

    /// A file with certificates (PEM) of authorities that workflows trust beside the system's, such as one's own.
    #[arg(long, env = "TIDEGATE_EGRESS_CA", value_name = "FILE")]
    pub(crate) egress_ca: Option<PathBuf>,

    /// Address ranges of proxies, such as 127.0.0.1/32, whose `X-Forwarded-For` is believed. Without it every request through
    /// a proxy counts as the proxy's own, for limits on sign-ins and in the audit log.
    #[arg(long, env = "TIDEGATE_TRUSTED_PROXIES", value_delimiter = ',', num_args = 1.., value_name = "CIDR", value_parser = range)]
    pub(crate) trusted_proxies: Vec<IpNet>,

    /// How many runs may be in flight at once; the others wait in the queue.
    #[arg(long, alias = "workers", env = "TIDEGATE_RUN_CONCURRENCY", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) run_concurrency: u16,

    /// Who may register: anybody, nobody, or whoever was invited. Open by default on a loopback address, else closed.
    #[arg(long, env = "TIDEGATE_REGISTRATION", value_name = "open|invite|closed")]
    registration: Option<Registration>,

    /// What is logged: a level, and levels per component, such as info,worker=debug.
    #[arg(long, env = "TIDEGATE_LOG", default_value = "info", value_name = "FILTER")]
    pub(crate) log: String,

    /// Where people reach this Tidegate, if not at the address that it listens on, such as `https://flows.example.com`. Links
    /// that it makes (approvals) begin with it.
    #[arg(long, env = "TIDEGATE_PUBLIC_URL", value_name = "URL", value_parser = base_url)]
    pub(crate) public_url: Option<String>,

    /// The mail server for invitations and links, such as `smtp://user:password@mail.example.com:587` (which must offer
    /// STARTTLS) or `smtps://…:465`. Without one, mails are written into the log. In the environment no other user sees it.
    #[arg(long, env = "TIDEGATE_SMTP_URL", value_name = "URL", hide_env_values = true, requires = "mail_from")]
    pub(crate) smtp_url: Option<Secret>,

    /// From whom mails come, such as `Tidegate <no-reply@example.com>`.
    #[arg(long, env = "TIDEGATE_MAIL_FROM", value_name = "ADDRESS")]
    pub(crate) mail_from: Option<String>,

    /// How much a tenant may ask for per second, and ten times that at once, unless it has limits of its own: requests to the
    /// API (api), those with one API key (key), webhooks (webhooks). What is left out is unlimited.
    #[arg(long, env = "TIDEGATE_RATE_LIMITS", default_value = "api=1000", value_name = "LIMITS")]
    pub(crate) rate_limits: Limits,

    /// Makes a demo tenant with sample workflows, and an inbox that they send to. Allows calls to 127.0.0.1.
    #[arg(long, env = "TIDEGATE_DEMO", value_parser = BoolishValueParser::new())]
    pub(crate) demo: bool,
}

/// A setting that is never printed. Any text is one, because a text that is refused here would be.
#[derive(Clone)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// A range such as `10.0.0.0/8`, or one address.
fn range(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let parsed = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    parsed.map_err(|_| "expected an address or a range such as 127.0.0.1/32; names of hosts can't be opened".to_owned())
}

/// An address that paths are appended to.
fn base_url(text: &str) -> Result<String, String> {
    let base = text.trim().trim_end_matches('/');
    let rest = base.strip_prefix("https://").or_else(|| base.strip_prefix("http://"));
    match rest {
        Some(host) if !host.is_empty() && !host.contains(['?', '#', '@', ' ']) => Ok(base.to_owned()),
        _ => Err("expected an address such as https://flows.example.com".to_owned()),
    }
}

impl Serve {
    /// The certificates of `--egress-ca`.
    pub(crate) fn extra_roots(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        let Some(file) = &self.egress_ca else { return Ok(Vec::new()) };
        let pem = std::fs::read(file).with_context(|| format!("can't read {}", file.display()))?;
        let roots = tidegate_egress::certificates(&pem);
        roots.map_err(|reason| anyhow::anyhow!("{} holds no certificates in PEM: {reason}", file.display()))
    }

    /// Where to listen.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }

    /// Where people reach the process, which listens at `url`.
    pub(crate) fn public_url(&self, url: &str) -> String {
        self.public_url.clone().unwrap_or_else(|| url.to_owned())
    }

    /// Who may register.
    pub(crate) fn registration(&self) -> Registration {
        self.registration.unwrap_or(if self.host.is_loopback() { Registration::Open } else { Registration::Closed })
    }
}
