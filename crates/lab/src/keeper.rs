//! The keeper: a small process that outlives the lab's and cleans up.
//!
//! A lab has to be gone after a panic, an interrupt and a SIGKILL too, and destructors see none of the last two. So every
//! lab starts a shell that reads from a pipe what there is to remove. However the lab's process ends, the pipe is
//! closed, and the shell ends the lab's processes and deletes its namespaces and its directory. There is one way to clean
//! up, and each run takes it.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::LabError;

const SCRIPT: &str = r#"
trap '' INT TERM HUP
pids= namespaces= directory=
while read -r word value; do
    case $word in
        pid) pids="$pids $value" ;;
        gone)
            left=
            for pid in $pids; do [ "$pid" = "$value" ] || left="$left $pid"; done
            pids=$left ;;
        namespace) namespaces="$namespaces $value" ;;
        directory) directory=$value ;;
    esac
done
for pid in $pids; do kill -9 "$pid"; done
for namespace in $namespaces; do
    for pid in $(ip netns pids "$namespace"); do kill -9 "$pid"; done
done
for namespace in $namespaces; do ip netns delete "$namespace"; done
[ -z "$directory" ] || rm -rf -- "$directory"
"#;

/// How long a lab waits for its keeper to be done.
const CLEANING: Duration = Duration::from_secs(20);

/// The lab's end of its keeper.
#[derive(Debug)]
pub(crate) struct Keeper {
    running: Mutex<Option<(Child, ChildStdin)>>,
}

/// Every keeper that isn't done, for [`clean_on_signals`].
static KEEPERS: Mutex<Vec<Weak<Keeper>>> = Mutex::new(Vec::new());

impl Keeper {
    /// Starts a keeper that has nothing to remove yet.
    pub(crate) fn start() -> Result<Arc<Keeper>, LabError> {
        let mut child = Command::new("sh")
            .args(["-c", SCRIPT, "electrode-lab-keeper"])
            .stdin(Stdio::piped())
            // An inherited pipe would keep whoever reads our output waiting for the keeper.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            // A Ctrl-C goes to the whole foreground group; the keeper has to survive it.
            .process_group(0)
            .spawn()
            .map_err(LabError::io("starting the keeper (sh)"))?;
        let stdin = child.stdin.take().ok_or(LabError::Io {
            doing: "starting the keeper".to_owned(),
            source: std::io::ErrorKind::BrokenPipe.into(),
        })?;
        let keeper = Arc::new(Keeper {
            running: Mutex::new(Some((child, stdin))),
        });
        let mut keepers = KEEPERS.lock().unwrap_or_else(PoisonError::into_inner);
        keepers.retain(|keeper| keeper.strong_count() > 0);
        keepers.push(Arc::downgrade(&keeper));
        Ok(keeper)
    }

    /// A namespace to delete, with all processes in it.
    pub(crate) fn namespace(&self, name: &str) -> Result<(), LabError> {
        self.tell("namespace", name)
    }

    /// The directory to delete.
    pub(crate) fn directory(&self, path: &Path) -> Result<(), LabError> {
        self.tell("directory", &path.to_string_lossy())
    }

    /// A child to kill.
    pub(crate) fn child(&self, pid: u32) -> Result<(), LabError> {
        self.tell("pid", &pid.to_string())
    }

    /// A child that has been waited for, so that its pid may be another's by now.
    pub(crate) fn child_gone(&self, pid: u32) {
        // With the keeper already done there is nothing left to tell it.
        let _ = self.tell("gone", &pid.to_string());
    }

    fn tell(&self, word: &str, value: &str) -> Result<(), LabError> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let told = match running.as_mut() {
            Some((_, stdin)) => stdin.write_all(format!("{word} {value}\n").as_bytes()),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        };
        told.map_err(LabError::io(format!(
            "telling the keeper of {word} {value}"
        )))
    }

    /// Cleans up now, and returns when it is done.
    pub(crate) fn finish(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((mut child, stdin)) = running.take() else {
            return;
        };
        drop(stdin);
        let started = Instant::now();
        while started.elapsed() < CLEANING {
            match child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        tracing::warn!("the lab's keeper is still cleaning up; not waiting for it any longer");
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.finish();
    }
}

/// From now on SIGINT, SIGTERM and SIGHUP end this process only after its labs are cleaned up.
///
/// Without it they are cleaned up too, but a moment after the process has ended.
///
/// # Errors
/// The handlers can't be installed.
pub fn clean_on_signals() -> std::io::Result<()> {
    static INSTALLED: Once = Once::new();
    let mut result = Ok(());
    INSTALLED.call_once(|| result = install());
    result
}

fn install() -> std::io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::Builder::new()
        .name("lab-signals".to_owned())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                let keepers = KEEPERS.lock().unwrap_or_else(PoisonError::into_inner);
                let keepers: Vec<_> = keepers.iter().filter_map(Weak::upgrade).collect();
                for keeper in keepers {
                    keeper.finish();
                }
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
        })
        .map(drop)
}
