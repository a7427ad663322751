//! One line of the doctor's report.

/// What a finding means for the fast path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// The fast path can't run.
    NotOk,
    /// It can run; somebody may want to know this all the same.
    Note,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) verdict: Verdict,
    /// What was looked at.
    pub(super) subject: String,
    /// What was found.
    pub(super) detail: String,
    /// What to do about it.
    pub(super) remedy: Option<String>,
}

impl Verdict {
    pub(super) fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::NotOk => "not ok",
            Verdict::Note => "note",
        }
    }
}

impl Finding {
    pub(super) fn ok(subject: impl Into<String>, detail: impl Into<String>) -> Finding {
        Finding::new(Verdict::Ok, subject.into(), detail.into())
    }

    pub(super) fn not_ok(subject: impl Into<String>, detail: impl Into<String>) -> Finding {
        Finding::new(Verdict::NotOk, subject.into(), detail.into())
    }

    pub(super) fn note(subject: impl Into<String>, detail: impl Into<String>) -> Finding {
        Finding::new(Verdict::Note, subject.into(), detail.into())
    }

    #[must_use]
    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Finding {
        self.remedy = Some(remedy.into());
        self
    }

    fn new(verdict: Verdict, subject: String, detail: String) -> Finding {
        Finding {
            verdict,
            subject,
            detail,
            remedy: None,
        }
    }
}
