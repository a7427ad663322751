//! A promise is on disk before anything of its view is said or armed, is never taken back, and holds across restarts.

use electrode_vr::{Message, Promise, Snapshot, Status, View};

use super::{Rule, Verdict};

pub(crate) const RULE: Rule = Rule {
    name: "a view is promised on disk first, and no promise is taken back",
    source: "Michael et al., DISC 2017; docs/protocol.md rule 4; docs/fast-path.md R2",
};

pub(crate) fn persisted(old: Option<Promise>, new: Promise, node: usize) -> Verdict {
    let Some(old) = old else {
        return Ok(());
    };
    if new.view < old.view || new.group != old.group {
        return Err(format!("replica {node} promised {old:?}, now {new:?}"));
    }
    Ok(())
}

pub(crate) fn normal(now: &Snapshot, disk: Option<Promise>, node: usize) -> Verdict {
    if now.status != Status::Normal {
        return Ok(());
    }
    // In the step that makes a replica normal the promise is among the effects, which haven't taken place yet: below the
    // view is allowed here, above it never.
    match disk {
        Some(promise) if promise.view > now.view => Err(format!(
            "replica {node} is normal in view {}, below the promised {}",
            now.view, promise.view
        )),
        _ => Ok(()),
    }
}

pub(crate) fn arming(node: usize, view: View, disk: Option<Promise>) -> Verdict {
    match disk {
        Some(promise) if promise.view == view => Ok(()),
        _ => Err(format!(
            "replica {node} arms its kernel in view {view}; on disk is {disk:?}"
        )),
    }
}

/// What names a view as the sender's own may leave only when that view is the promised one.
pub(crate) fn sent(message: &Message, disk: Option<Promise>, node: usize) -> Verdict {
    let view = match message {
        Message::PrepareOk { view, .. }
        | Message::Commit { view, .. }
        | Message::StartViewChange { view }
        | Message::DoViewChange { view, .. }
        | Message::StartView { view, .. } => *view,
        Message::Prepare(prepare) => prepare.view,
        _ => return Ok(()),
    };
    if disk.map(|promise| promise.view) == Some(view) {
        return Ok(());
    }
    Err(format!(
        "replica {node} speaks of view {view} with {disk:?} on disk: {message:?}"
    ))
}
