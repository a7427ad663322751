//! The metrics page: the status report as Prometheus text over a minimal HTTP/1.1. Bounded in connections, bytes and
//! time; the text is made by the driver, when asked, so that no counter is shared.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::Duration;

use smol::channel::{Receiver, Sender, bounded};
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use smol::{Async, LocalExecutor, Timer};

use crate::status::StatusReport;

/// Connections served at a time.
const CONNECTIONS: usize = 16;
/// The longest request head, in bytes.
const HEAD_BYTES: usize = 4096;
/// The longest that one connection may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection that waits for the text.
pub(crate) type Ask = Sender<String>;

/// The questions of the metrics server, for the driver to answer.
pub(crate) fn questions() -> (Sender<Ask>, Receiver<Ask>) {
    bounded(CONNECTIONS)
}

/// Serves until the executor is dropped.
pub(crate) async fn serve(
    listener: Async<TcpListener>,
    executor: Rc<LocalExecutor<'static>>,
    ask: Sender<Ask>,
) {
    let (permit, permits) = bounded::<()>(CONNECTIONS);
    loop {
        // A slot is taken before accepting: what is over the bound waits in the kernel's queue.
        if permit.send(()).await.is_err() {
            return;
        }
        match listener.accept().await {
            Ok((connection, _)) => {
                let (permits, ask) = (permits.clone(), ask.clone());
                executor
                    .spawn(async move {
                        let timeout = async {
                            Timer::after(PATIENCE).await;
                            Err(io::ErrorKind::TimedOut.into())
                        };
                        if let Err(error) =
                            smol::future::or(answer(connection, &ask), timeout).await
                        {
                            tracing::debug!("metrics: {error}");
                        }
                        let _ = permits.try_recv();
                    })
                    .detach();
            }
            Err(error) => {
                tracing::warn!("metrics: {error}");
                let _ = permits.try_recv();
                Timer::after(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn answer(mut connection: Async<std::net::TcpStream>, ask: &Sender<Ask>) -> io::Result<()> {
    let mut head = Vec::new();
    let mut chunk = [0; 512];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let read = connection.read(&mut chunk).await?;
        if read == 0 || head.len() + read > HEAD_BYTES {
            return Err(io::Error::other("the request's head doesn't end"));
        }
        head.extend_from_slice(&chunk[..read]);
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (status, body) = match (words.next(), words.next()) {
        (Some(b"GET"), Some(b"/metrics" | b"/")) => {
            let (send, receive) = bounded(1);
            let _ = ask.send(send).await;
            ("200 OK", receive.recv().await.unwrap_or_default())
        }
        (Some(b"GET"), _) => ("404 Not Found", "the page is /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", "GET /metrics\n".to_owned()),
    };
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(response.as_bytes()).await?;
    connection.flush().await
}

/// The report in Prometheus' text format.
pub(crate) fn render(report: &StatusReport) -> String {
    let mut page = Page(String::new());
    let state = |wanted: &str| u64::from(report.status == wanted);
    page.metric(
        "status",
        "gauge",
        "1 for the replica's status, 0 for the others",
    );
    for status in ["starting", "normal", "view-change", "recovering"] {
        page.sample("status", &[("status", status)], state(status));
    }
    let accelerated = &report.accelerated;
    page.metric(
        "accelerated",
        "gauge",
        "1 while the kernel takes part; labels say how",
    );
    let labels = [
        ("xdp", accelerated.xdp.as_str()),
        ("tc", accelerated.tc.as_str()),
    ];
    page.sample("accelerated", &labels, u64::from(accelerated.armed));
    page.metric("durability", "gauge", "1 for what survives the process");
    page.sample("durability", &[("mode", &report.durability)], 1);
    if let Some(durable) = report.durable {
        page.metric("durable", "gauge", "the last op that is on disk");
        page.sample("durable", &[], durable);
    }
    for (name, help, value) in [
        (
            "primary",
            "1 on the view's primary",
            u64::from(report.role == "primary"),
        ),
        ("view", "the view", report.view),
        ("op", "the last op in the log", report.op),
        ("commit", "the commit number", report.commit),
        (
            "log_entries",
            "entries in the log",
            report.log_entries as u64,
        ),
        ("sessions", "client sessions", report.sessions as u64),
        (
            "uptime_seconds",
            "seconds since the start",
            report.uptime_ms / 1000,
        ),
    ] {
        page.metric(name, "gauge", help);
        page.sample(name, &[], value);
    }
    page.metric(
        "peer_acked",
        "gauge",
        "highest op that the peer acknowledged in this view",
    );
    for peer in &report.peers {
        page.sample(
            "peer_acked",
            &[("peer", &peer.index.to_string())],
            peer.acked,
        );
    }
    let driver = &report.driver;
    for (name, help, value) in [
        ("packets_in_total", "datagrams received", driver.packets_in),
        ("packets_out_total", "datagrams sent", driver.packets_out),
        (
            "stored_total",
            "Prepares taken from the kernel's ring",
            driver.stored,
        ),
        (
            "broadcasts_total",
            "messages that the kernel copied",
            driver.broadcasts,
        ),
        (
            "broadcasts_plain_total",
            "messages to all that went one by one",
            driver.broadcasts_plain,
        ),
        ("requests_total", "clients' requests", driver.requests),
        ("replies_total", "replies to clients", driver.replies),
        (
            "disk_writes_total",
            "writes to the log on disk",
            driver.disk_writes,
        ),
        (
            "disk_syncs_total",
            "how often it was synced",
            driver.disk_syncs,
        ),
        (
            "syscalls_total",
            "system calls of the replica's thread",
            driver.syscalls,
        ),
        ("turns_total", "turns of the loop", driver.turns),
    ] {
        page.metric(name, "counter", help);
        page.sample(name, &[], value);
    }
    page.metric(
        "dropped_total",
        "counter",
        "datagrams that went no further, by reason",
    );
    page.samples("dropped_total", &[], "reason", &driver.dropped);
    page.metric(
        "kernel_total",
        "counter",
        "what the kernel's programs counted",
    );
    for (program, counters) in &report.counters {
        page.samples("kernel_total", &[("program", program)], "reason", counters);
    }
    page.0
}

struct Page(String);

impl Page {
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(
            self.0,
            "# HELP electrode_{name} {help}\n# TYPE electrode_{name} {kind}"
        );
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, text)| format!("{label}=\"{text}\""))
            .collect();
        let braces = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", labels.join(","))
        };
        let _ = writeln!(self.0, "electrode_{name}{braces} {value}");
    }

    fn samples(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        label: &str,
        values: &BTreeMap<String, u64>,
    ) {
        for (text, value) in values {
            self.sample(name, &[labels, &[(label, text)]].concat(), *value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_each_counter_with_its_labels() {
        let mut report = StatusReport {
            status: "normal".into(),
            view: 7,
            ..StatusReport::default()
        };
        report.driver.dropped.insert("wrong_group".into(), 3);
        report
            .counters
            .insert("prepare".into(), BTreeMap::from([("acked".into(), 9)]));
        let page = render(&report);
        for line in [
            "electrode_view 7",
            "electrode_status{status=\"normal\"} 1",
            "electrode_status{status=\"recovering\"} 0",
            "electrode_dropped_total{reason=\"wrong_group\"} 3",
            "electrode_kernel_total{program=\"prepare\",reason=\"acked\"} 9",
            "# TYPE electrode_syscalls_total counter",
        ] {
            assert!(
                page.lines().any(|other| other == line),
                "{line} is missing in\n{page}"
            );
        }
    }
}
