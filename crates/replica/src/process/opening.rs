//! What a start makes of the log on disk: used, set aside, refused, but never ignored.

use electrode_vr::{Durability, OpNumber, Start, Stored, View};

use crate::error::RunError;
use crate::journal::{self, DiskError, Found, Journal};
use crate::options::Options;

/// Opens the log on disk, in disk mode. A damaged one is set aside where others can bring this replica back; a log is never
/// ignored.
pub(super) fn open_journal(
    options: &Options,
    start: Start,
) -> Result<(Option<Journal>, Option<Stored>), RunError> {
    let (state_dir, replicas) = (&options.state_dir, options.replicas.len());
    let identity = journal::Identity {
        index: options.index,
        replicas,
    };
    if options.durability == Durability::Memory {
        journal::refuse_leftover(state_dir, identity)?;
        return Ok((None, None));
    }
    let (journal, found) = match Journal::open(state_dir, identity) {
        Err(damage @ DiskError::Damaged { .. }) if replicas > 1 => {
            let place = journal::set_aside(state_dir)?;
            tracing::error!(
                "the log on disk is damaged: {damage}. This replica recovers from the others; the damaged log is in {}",
                place.display()
            );
            Journal::open(state_dir, identity)?
        }
        Err(damage @ DiskError::Damaged { .. }) => {
            let damage = Box::new(damage);
            return Err(DiskError::Alone { damage }.into());
        }
        opened => opened?,
    };
    let Start::Recover(promise) = start else {
        // The log is begun right before the first promise is made; whatever more there is was said to others.
        let more =
            |found: &Found| found.stored.op() > OpNumber(0) || found.stored.last_normal() > View(0);
        if found.as_ref().is_some_and(more) {
            return Err(DiskError::NoPromise(journal::directory(state_dir)).into());
        }
        return Ok((Some(journal), None));
    };
    let Some(Found {
        group,
        stored,
        torn_bytes,
    }) = found
    else {
        if replicas == 1 {
            return Err(DiskError::NoLog(journal::directory(state_dir)).into());
        }
        tracing::warn!("there is no log on disk: this replica recovers from the others");
        return Ok((Some(journal), None));
    };
    if group != promise.group {
        return Err(DiskError::Foreign {
            path: journal::directory(state_dir),
            index: options.index.0,
            replicas,
            group,
        }
        .into());
    }
    tracing::info!(
        "the log on disk ends with op {} of view {}{}",
        stored.op(),
        stored.last_normal(),
        if torn_bytes > 0 {
            format!("; {torn_bytes} bytes of an unfinished write were cut off")
        } else {
            String::new()
        }
    );
    Ok((Some(journal), Some(stored)))
}
