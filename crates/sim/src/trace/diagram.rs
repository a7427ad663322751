//! A space-time diagram as one HTML page with an SVG in it: a line per replica, time from top to bottom, an arrow per
//! message. Nothing is fetched from anywhere.

use std::fmt::Write as _;

use super::{Kind, Trace};

/// Pixels between two replicas' lines, and of a millisecond.
const COLUMN: u64 = 340;
const MILLISECOND: f64 = 60.0;
const LEFT: u64 = 90;
/// Lines of text that would lie closer than this, in pixels, are moved down.
const LINE: f64 = 11.0;

/// The page for what lies between `from` and `to`, in simulated nanoseconds.
pub(crate) fn diagram(trace: &Trace, replicas: usize, title: &str, from: u64, to: u64) -> String {
    let y = |at: u64| 40.0 + (at.saturating_sub(from)) as f64 / 1e6 * MILLISECOND;
    let x = |node: usize| LEFT + node as u64 * COLUMN;
    let (width, height) = (LEFT + replicas as u64 * COLUMN, y(to) + 40.0);
    let mut svg = String::new();
    for node in 0..replicas {
        let _ = write!(
            svg,
            r##"<line x1="{0}" y1="30" x2="{0}" y2="{height:.0}" stroke="#888"/><text x="{0}" y="20" font-weight="bold">replica {node}</text>"##,
            x(node)
        );
    }
    let mut tick = from / 1_000_000 * 1_000_000;
    while tick <= to {
        let _ = write!(
            svg,
            r##"<text x="2" y="{:.1}" fill="#888">{} ms</text>"##,
            y(tick) + 3.0,
            tick / 1_000_000
        );
        tick += 1_000_000;
    }
    for arrow in &trace.arrows {
        if arrow.arrives < from || arrow.sent > to {
            continue;
        }
        let colour = if arrow.by_kernel { "#c60" } else { "#36a" };
        let dash = if arrow.lost {
            r#" stroke-dasharray="2 4""#
        } else {
            ""
        };
        let (x1, x2) = (x(arrow.from), x(arrow.to));
        let (y1, y2) = (y(arrow.sent), y(arrow.arrives));
        let _ = write!(
            svg,
            r##"<line x1="{x1}" y1="{y1:.1}" x2="{x2}" y2="{y2:.1}" stroke="{colour}"{dash} marker-end="url(#head)"><title>{}</title></line>"##,
            escaped(&arrow.label)
        );
    }
    let mut free = vec![0.0_f64; replicas];
    for line in &trace.lines {
        if line.at < from || line.at > to {
            continue;
        }
        let node = line.node.unwrap_or(0);
        let at = y(line.at).max(free[node]);
        free[node] = at + LINE;
        let colour = match line.kind {
            Kind::Fault | Kind::Violation => "#c00",
            Kind::View => "#080",
            Kind::Kernel => "#a50",
            Kind::Plain => "#444",
        };
        let left = if line.node.is_none() { 2 } else { x(node) + 6 };
        let _ = write!(
            svg,
            r##"<text x="{left}" y="{at:.1}" fill="{colour}">{}</text>"##,
            escaped(&line.text)
        );
    }
    format!(
        r##"<!doctype html><meta charset="utf-8"><title>{0}</title><body style="font-family:sans-serif"><h3>{0}</h3>
<p>Blue: sent by user space. Orange: by a program. Dotted: lost. Hover over an arrow to read the message.</p>
<svg width="{width}" height="{height:.0}" font-family="monospace" font-size="9">
<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="6" markerHeight="6" orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>
{svg}</svg></body>
"##,
        escaped(title)
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
