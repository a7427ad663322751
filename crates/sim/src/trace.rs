//! What happened, for a person to read: a line per event, and a space-time diagram.

mod diagram;

use electrode_vr::{Effect, FastPathCommand, FastPathEvent, Input, Message, Note};

use crate::card::Event;

pub(crate) use diagram::diagram;

/// Lines and arrows that a run may leave; a longer one keeps its end.
const KEPT: usize = 200_000;

/// What one line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Crash, start, pause, partition.
    Fault,
    /// A change of view or status.
    View,
    /// Something that the kernel's part did or was told.
    Kernel,
    /// Everything else.
    Plain,
    /// What ended the run.
    Violation,
}

/// One event.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) at: u64,
    /// The replica, or None for the world.
    pub(crate) node: Option<usize>,
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Arrow {
    pub(crate) sent: u64,
    pub(crate) arrives: u64,
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) label: String,
    pub(crate) by_kernel: bool,
    pub(crate) lost: bool,
}

/// The record of a run; empty unless it is asked for.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    on: bool,
    pub(crate) lines: Vec<Line>,
    pub(crate) arrows: Vec<Arrow>,
    pub(crate) warnings: u64,
}

impl Trace {
    pub(crate) fn new(on: bool) -> Trace {
        Trace {
            on,
            ..Trace::default()
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    pub(crate) fn line(
        &mut self,
        at: u64,
        node: Option<usize>,
        kind: Kind,
        text: impl FnOnce() -> String,
    ) {
        if self.on {
            if self.lines.len() >= KEPT {
                self.lines.drain(..KEPT / 2);
            }
            let text = text();
            self.lines.push(Line {
                at,
                node,
                kind,
                text,
            });
        }
    }

    pub(crate) fn input(&mut self, at: u64, node: usize, input: &Input) {
        match input {
            Input::FastPath(FastPathEvent::Stored(prepare)) => {
                self.line(at, Some(node), Kind::Kernel, || {
                    format!(
                        "took from the ring: ops {}..={} of view {}",
                        prepare.first,
                        prepare.last(),
                        prepare.view
                    )
                })
            }
            Input::FastPath(event) => {
                self.line(at, Some(node), Kind::Kernel, || format!("{event:?}"))
            }
            Input::Request {
                client, request, ..
            } => {
                self.line(at, Some(node), Kind::Plain, || {
                    format!("request {request} of client {client}")
                });
            }
            Input::Message { .. } | Input::Tick { .. } | Input::Persisted { .. } | Input::Flush => {
            }
        }
    }

    pub(crate) fn received(&mut self, at: u64, node: usize, from: usize, message: &Message) {
        self.line(at, Some(node), Kind::Plain, || {
            format!("from {from}: {}", summary(message))
        });
    }

    pub(crate) fn effect(&mut self, at: u64, node: usize, effect: &Effect) {
        match effect {
            Effect::Note(Note::Entered {
                status,
                view,
                primary,
            }) => self.line(at, Some(node), Kind::View, || {
                format!(
                    "{status} in view {view}{}",
                    if *primary { ", primary" } else { "" }
                )
            }),
            Effect::FastPath(command) => {
                self.line(at, Some(node), Kind::Kernel, || match command {
                    FastPathCommand::Fence => "fence".to_owned(),
                    FastPathCommand::Arm {
                        view,
                        primary,
                        last_op,
                    } => {
                        let role = if *primary { "primary" } else { "backup" };
                        format!("arm: view {view}, {role}, log to {last_op}")
                    }
                    FastPathCommand::Claim { after, last } => {
                        format!("claim {}..={last}", after.next())
                    }
                    FastPathCommand::OpenSlot { op } => format!("open the slot of {op}"),
                })
            }
            Effect::Persist(promise) => {
                self.line(at, Some(node), Kind::View, || {
                    format!("promise view {} on disk", promise.view)
                });
            }
            Effect::Reply {
                client,
                request,
                reply,
                ..
            } => self.line(at, Some(node), Kind::Plain, || {
                let what = match reply {
                    electrode_vr::Reply::Done(_) => "done".to_owned(),
                    other => format!("{other:?}"),
                };
                format!("reply to client {client} request {request}: {what}")
            }),
            Effect::Send { .. } | Effect::Broadcast(_) | Effect::Write(_) | Effect::Note(_) => {}
        }
    }

    pub(crate) fn warning(&mut self, at: u64, node: usize, text: &str) {
        self.warnings += 1;
        self.line(at, Some(node), Kind::View, || format!("warning: {text}"));
    }

    pub(crate) fn card(&mut self, at: u64, node: usize, event: &Event) {
        if matches!(event, Event::Marked { .. }) {
            return;
        }
        self.line(at, Some(node), Kind::Kernel, || match event {
            Event::Accepted {
                generation,
                from,
                to,
            } => {
                format!(
                    "kernel stored ops {}..={to} (generation {generation})",
                    from + 1
                )
            }
            other => format!("{other:?}"),
        });
    }

    pub(crate) fn arrow(&mut self, arrow: impl FnOnce() -> Arrow) {
        if self.on {
            if self.arrows.len() >= KEPT {
                self.arrows.drain(..KEPT / 2);
            }
            self.arrows.push(arrow());
        }
    }
}

/// A message in a few words.
pub(crate) fn summary(message: &Message) -> String {
    match message {
        Message::Prepare(prepare) => format!(
            "Prepare v{} {}..={} commit {}",
            prepare.view,
            prepare.first,
            prepare.last(),
            prepare.commit
        ),
        Message::PrepareOk { view, op, last_op } => {
            format!("PrepareOk v{view} {op} (newest {last_op})")
        }
        Message::Commit { view, commit } => format!("Commit v{view} {commit}"),
        Message::NewState {
            view,
            after,
            entries,
            op,
            ..
        } => format!(
            "NewState v{view} {} entries after {after}, log to {op}",
            entries.len()
        ),
        Message::CheckpointChunk {
            op, offset, total, ..
        } => format!("CheckpointChunk of {op} at {offset} of {total}"),
        other => format!("{other:?}"),
    }
}
