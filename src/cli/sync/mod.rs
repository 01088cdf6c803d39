//! `jailgate sync`: one reconcile of LAPI's decisions into the Cloudflare list, then exit. It takes
//! the environment of the cron job it replaces, prints its lines and leaves with its exit codes.

mod lapi;

use std::{fmt::Display, io::Write, process::ExitCode, time::Duration};

use super::BAD_CONFIG;
use crate::{
    cloudflare::{Access, Client, Done, Error, Gauges, List, Policy, Wanted},
    config::Secret,
    telemetry::cloudflare::CloudflareMetrics,
    time::{Clock, Millis},
};

/// How long everything may take, the push of the gauges (5 s) left over.
const BUDGET: Millis = 105_000;
/// How long LAPI's failure may be followed by asking how long the list is.
const ASIDE: Millis = 5_000;
/// Where the chart of CrowdSec puts its LAPI.
const LAPI_URL: &str = "http://crowdsec-service.crowdsec.svc.cluster.local:8080";
const CF_API_URL: &str = "https://api.cloudflare.com/client/v4";
const CAPACITY: usize = 10_000;

/// What the environment says.
#[derive(Debug)]
struct Environment {
    lapi_url: String,
    lapi_key: Secret,
    access: Access,
    capacity: usize,
    pushgateway: Option<String>,
}

/// What became of a run.
#[derive(Debug)]
struct Outcome {
    /// Bans the list should hold, or holds.
    bans: Option<usize>,
    success: bool,
    code: ExitCode,
}

/// What was changed, and what remains to be said.
#[derive(Debug, Default)]
struct Summary {
    was: Option<usize>,
    added: usize,
    removed: usize,
    left_out: usize,
}

/// Exit code 0 when the list is what LAPI says or was left untouched, 1 after an error of
/// Cloudflare, 78 when the environment lacks something.
pub fn run() -> anyhow::Result<ExitCode> {
    let environment = match Environment::read(|name| std::env::var(name).ok()) {
        Ok(environment) => environment,
        Err(problems) => {
            eprintln!("jailgate: sync: {}", problems.join("; "));
            return Ok(ExitCode::from(BAD_CONFIG));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let clock = Clock::start();
        let gateway = environment.pushgateway.clone();
        let outcome = sync(environment, clock).await;
        if let Some(gateway) = gateway {
            let gauges = Gauges {
                bans: outcome.bans,
                success: outcome.success,
                at: clock.now(),
            };
            if let Err(error) = gauges.push(&gateway).await {
                eprintln!("warning: the gauges were not pushed: {error}");
            }
        }
        Ok(outcome.code)
    })
}

impl Environment {
    /// Every problem at once.
    fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let given = |name: &str| {
            let value = get(name).map(|value| value.trim().to_owned());
            value.filter(|value| !value.is_empty())
        };
        let mut needed = |name: &str| {
            given(name).unwrap_or_else(|| {
                problems.push(format!("{name} is not set"));
                String::new()
            })
        };
        let url = |name: &str, default: &str| {
            let url = given(name).unwrap_or_else(|| default.to_owned());
            url.trim_end_matches('/').to_owned()
        };
        let lapi_key = Secret::new(needed("LAPI_KEY"));
        let access = Access {
            account_id: needed("CF_ACCOUNT_ID"),
            token: Secret::new(needed("CF_API_TOKEN")),
            list_id: needed("CF_BAN_LIST_ID"),
            base_url: url("CF_API_URL", CF_API_URL),
        };
        for (name, id) in [
            ("CF_ACCOUNT_ID", &access.account_id),
            ("CF_BAN_LIST_ID", &access.list_id),
        ] {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if !id.chars().all(plain) {
                problems.push(format!("{name} is no id"));
            }
        }
        let capacity = given("CF_LIST_CAPACITY").map(|text| text.parse());
        let capacity = capacity.unwrap_or(Ok(CAPACITY)).unwrap_or_else(|_| {
            problems.push("CF_LIST_CAPACITY is no number".to_owned());
            0
        });
        let environment = Self {
            lapi_url: url("LAPI_URL", LAPI_URL),
            lapi_key,
            access,
            capacity,
            pushgateway: given("PUSHGATEWAY_URL"),
        };
        match problems.is_empty() {
            true => Ok(environment),
            false => Err(problems),
        }
    }
}

async fn sync(environment: Environment, clock: Clock) -> Outcome {
    let deadline = clock.now() + BUDGET;
    let decisions = lapi::decisions(&environment.lapi_url, &environment.lapi_key).await;
    let mut client = match Client::new(environment.access, clock) {
        Ok(client) => client,
        Err(error) => return failed(error, None),
    };
    let decisions = match decisions {
        Ok(decisions) => decisions,
        Err(error) => {
            eprintln!("skip: LAPI cannot be read, the list stays as it is: {error}");
            client.set_deadline(clock.now() + ASIDE);
            let list = client.describe().await;
            return Outcome {
                bans: list.ok().map(|list| list.num_items as usize),
                success: false,
                code: ExitCode::SUCCESS,
            };
        }
    };
    let wanted = lapi::wanted(&decisions, clock.now());
    client.set_deadline(deadline);
    let policy = Policy {
        tag: "jailgate".to_owned(),
        whole_list: true,
        retag: false,
        capacity: environment.capacity,
    };
    let mut list = List::new(client, policy, CloudflareMetrics::default());
    let mut summary = Summary::default();
    let ended = reconcile(&mut list, &wanted, &mut summary, clock, deadline).await;
    told(ended, &wanted, &summary)
}

/// Waits where Cloudflare asks for patience, as far as there is time.
async fn reconcile(
    list: &mut List,
    wanted: &Wanted,
    summary: &mut Summary,
    clock: Clock,
    deadline: Millis,
) -> Result<(), Error> {
    loop {
        match attempt(list, wanted, summary, clock).await {
            Err(Error::Limited { wait, .. })
                if clock.now() + (wait.as_millis() as Millis) < deadline =>
            {
                tokio::time::sleep(wait.max(Duration::from_secs(1))).await;
            }
            // The list is known to be smaller by now.
            Err(error) if error.is_full() => {}
            ended => return ended,
        }
    }
}

async fn attempt(
    list: &mut List,
    wanted: &Wanted,
    summary: &mut Summary,
    clock: Clock,
) -> Result<(), Error> {
    list.read(true).await?;
    summary.was = summary.was.or(list.items());
    loop {
        match list.step(wanted, None, clock.now()).await? {
            Done::Put(items) => summary.added += items,
            Done::Removed(items) => summary.removed += items,
            Done::Looked => {}
            Done::Nothing(plan) => {
                summary.left_out = plan.left_out.len();
                return Ok(());
            }
        }
    }
}

fn told(ended: Result<(), Error>, wanted: &Wanted, summary: &Summary) -> Outcome {
    let desired = wanted.len();
    let Summary { added, removed, .. } = summary;
    let was = summary.was.unwrap_or(0);
    match ended {
        Ok(()) => {
            if summary.left_out > 0 {
                eprintln!("{} bans have no room in the list", summary.left_out);
            }
            if wanted.unfit > 0 {
                eprintln!("{} ranges are wider than a list takes", wanted.unfit);
            }
            // Who closed our output does not want to know.
            let _ = writeln!(
                std::io::stdout(),
                "+{added} / -{removed} (desired={desired}, was={was})"
            );
            Outcome {
                bans: Some(desired - summary.left_out),
                success: true,
                code: ExitCode::SUCCESS,
            }
        }
        Err(error @ (Error::Pending { .. } | Error::OutOfTime)) => {
            eprintln!("{error}; the next run goes on (+{added} / -{removed} so far)");
            Outcome {
                bans: Some(desired),
                success: false,
                code: ExitCode::SUCCESS,
            }
        }
        Err(error) => failed(error, Some(desired)),
    }
}

fn failed(error: impl Display, bans: Option<usize>) -> Outcome {
    eprintln!("Cloudflare: {error}");
    Outcome {
        bans,
        success: false,
        code: ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Environment, Vec<String>> {
        Environment::read(|name| {
            let pair = pairs.iter().find(|(known, _)| *known == name);
            pair.map(|(_, value)| (*value).to_owned())
        })
    }

    const NEEDED: [(&str, &str); 4] = [
        ("LAPI_KEY", "k\n"),
        ("CF_ACCOUNT_ID", "a1"),
        ("CF_API_TOKEN", "t"),
        ("CF_BAN_LIST_ID", "b2"),
    ];

    #[test]
    fn the_environment_of_the_cron_job_is_enough() {
        let environment = read(&NEEDED).unwrap();
        assert_eq!(environment.lapi_url, LAPI_URL);
        assert_eq!(environment.lapi_key.expose(), "k");
        assert_eq!(environment.access.base_url, CF_API_URL);
        assert!(environment.pushgateway.is_none());
        let more = [("LAPI_URL", "http://l:8080/"), ("CF_LIST_CAPACITY", "7")];
        let environment = read(&[&NEEDED[..], &more].concat()).unwrap();
        assert_eq!(environment.lapi_url, "http://l:8080");
        assert_eq!(environment.capacity, 7);
    }

    #[test]
    fn everything_that_is_missing_is_named() {
        let problems = read(&[("LAPI_KEY", ""), ("CF_BAN_LIST_ID", "a/b")]).unwrap_err();
        let expected = [
            "LAPI_KEY is not set",
            "CF_ACCOUNT_ID is not set",
            "CF_API_TOKEN is not set",
            "CF_BAN_LIST_ID is no id",
        ];
        assert_eq!(problems, expected);
    }
}
