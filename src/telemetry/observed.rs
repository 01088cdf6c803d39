//! Metrics that nobody counts and that are read when they are asked for: the process, the tokio
//! runtimes, the background jobs. `/proc` is read, and nothing is where there is none.

use std::{fmt, fs, sync::OnceLock};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use tokio::runtime::Handle;

use super::{Statuses, status::State};
use crate::tasks::Tasks;

/// What is looked at, once the program has it.
#[derive(Debug, Default)]
pub(super) struct Observed {
    pub(super) of: OnceLock<(Tasks, Statuses)>,
}

/// The usual `process_…` metrics, which have no prefix.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(process) = Sample::take() else {
            return Ok(());
        };
        let mut gauge = |name, help, value: f64| {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)
        };
        gauge(
            "process_resident_memory_bytes",
            "Resident memory",
            process.resident,
        )?;
        gauge(
            "process_virtual_memory_bytes",
            "Virtual memory",
            process.virtual_size,
        )?;
        gauge(
            "process_open_fds",
            "Open file descriptors",
            process.open_files,
        )?;
        gauge(
            "process_max_fds",
            "Most file descriptors that may be open",
            process.max_files,
        )?;
        gauge("process_threads", "Threads", process.threads)?;
        gauge(
            "process_start_time_seconds",
            "Start, since the Unix epoch",
            process.started,
        )?;
        let metric = encoder.encode_descriptor(
            "process_cpu_seconds",
            "CPU time, user and system",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(process.cpu).encode(metric)
    }
}

impl Collector for Observed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some((tasks, statuses)) = self.of.get() else {
            return Ok(());
        };
        runtimes(&mut encoder, tasks)?;
        jobs(&mut encoder, statuses)
    }
}

fn runtimes(encoder: &mut DescriptorEncoder<'_>, tasks: &Tasks) -> fmt::Result {
    let runtimes = tasks.runtimes();
    let mut each = |name, help, kind, value: &dyn Fn(&Handle) -> f64| {
        let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
        for (runtime, handle) in &runtimes {
            let labels = [("runtime", &**runtime)];
            let family = metric.encode_family(&labels)?;
            match kind {
                MetricType::Counter => ConstCounter::new(value(handle)).encode(family)?,
                _ => ConstGauge::new(value(handle)).encode(family)?,
            }
        }
        Ok(())
    };
    use MetricType::{Counter, Gauge};
    each(
        "runtime_workers",
        "Threads that run tasks",
        Gauge,
        &|handle| handle.metrics().num_workers() as f64,
    )?;
    each(
        "runtime_alive_tasks",
        "Tasks that have not ended",
        Gauge,
        &|handle| handle.metrics().num_alive_tasks() as f64,
    )?;
    each(
        "runtime_queue_depth",
        "Tasks waiting in the global queue",
        Gauge,
        &|handle| handle.metrics().global_queue_depth() as f64,
    )?;
    each(
        "runtime_busy_seconds",
        "Time that workers were busy",
        Counter,
        &|handle| {
            let metrics = handle.metrics();
            let workers = 0..metrics.num_workers();
            workers
                .map(|worker| metrics.worker_total_busy_duration(worker).as_secs_f64())
                .sum()
        },
    )
}

fn jobs(encoder: &mut DescriptorEncoder<'_>, statuses: &Statuses) -> fmt::Result {
    let jobs = statuses.all();
    let mut each = |name, help, value: &dyn Fn(&super::status::Snapshot) -> f64| {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for job in &jobs {
            let labels = [("job_name", &*job.name)];
            ConstGauge::new(value(job)).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    };
    each(
        "job_failing",
        "Whether a background job's latest attempt failed",
        &|job| f64::from(job.state == State::Failing),
    )?;
    each(
        "job_lag_seconds",
        "How far a background job is behind",
        &|job| job.lag as f64 / 1000.0,
    )?;
    each(
        "job_last_success_seconds",
        "When a background job last succeeded, since the Unix epoch; 0: not yet",
        &|job| job.last_ok.unwrap_or(0) as f64 / 1000.0,
    )
}

/// The process as `/proc` shows it.
struct Sample {
    resident: f64,
    virtual_size: f64,
    threads: f64,
    open_files: f64,
    max_files: f64,
    cpu: f64,
    started: f64,
}

impl Sample {
    fn take() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The name, in parentheses, may hold anything.
        let (_, fields) = stat.rsplit_once(") ")?;
        let fields: Vec<f64> = fields
            .split_whitespace()
            .map(|field| field.parse().unwrap_or(0.0))
            .collect();
        // proc(5) numbers fields from 1 and `state`, the first here, is the third.
        let field = |number: usize| fields.get(number - 3).copied();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let max_files = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        Some(Self {
            resident: field(24)? * rustix::param::page_size() as f64,
            virtual_size: field(23)?,
            threads: field(20)?,
            open_files: fs::read_dir("/proc/self/fd").map_or(0.0, |files| files.count() as f64),
            max_files: max_files.unwrap_or(u64::MAX as f64),
            cpu: (field(14)? + field(15)?) / ticks,
            started: booted()? + field(22)? / ticks,
        })
    }
}

/// When the machine started, in seconds since the Unix epoch.
fn booted() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::*;

    /// The value of the first line that starts so.
    #[track_caller]
    fn value(text: &str, start: &str) -> f64 {
        let line = text.lines().find(|line| line.starts_with(start));
        let line = line.unwrap_or_else(|| panic!("no {start} in\n{text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    #[tokio::test]
    async fn the_process_the_runtimes_and_the_jobs_are_seen() {
        let (metrics, tasks, statuses) = (Metrics::new(), Tasks::new(), Statuses::new());
        metrics.observe(tasks.clone(), statuses.clone());
        tasks.runtime("here");
        let disk = statuses.add("disk");
        disk.ok(1_500, "");
        disk.failed(2_000, "full");
        disk.lag(2_500);
        tasks.spawn(std::future::pending());
        let text = metrics.render();
        let now = crate::time::Clock::start().wall() as f64 / 1000.0;
        let started = value(&text, "process_start_time_seconds ");
        assert!(
            now - started < 3600.0 && started <= now + 1.0,
            "{started} {now}"
        );
        let resident = value(&text, "process_resident_memory_bytes ");
        assert!((1e6..1e10).contains(&resident), "{resident}");
        assert!(value(&text, "process_open_fds ") >= 3.0);
        assert!(value(&text, "process_cpu_seconds_total ") < 3600.0);
        assert_eq!(
            value(&text, r#"jailgate_runtime_workers{runtime="here"}"#),
            1.0
        );
        assert_eq!(
            value(&text, r#"jailgate_runtime_alive_tasks{runtime="here"}"#),
            1.0
        );
        assert_eq!(
            value(&text, r#"jailgate_job_failing{job_name="disk"}"#),
            1.0
        );
        assert_eq!(
            value(&text, r#"jailgate_job_lag_seconds{job_name="disk"}"#),
            2.5
        );
        assert_eq!(
            value(
                &text,
                r#"jailgate_job_last_success_seconds{job_name="disk"}"#
            ),
            1.5
        );
        assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1);
    }
}
