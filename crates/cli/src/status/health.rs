//! Whether the group, as far as it answered, can serve.

use std::collections::BTreeMap;
use std::fmt;

use electrode_replica::StatusReport;

use super::Answer;

/// The verdict.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Health {
    replicas: usize,
    reachable: usize,
    /// The view that most normal replicas are in, and how many they are.
    view: u64,
    normal: usize,
    /// Its primaries, by their own account.
    primaries: Vec<u8>,
    /// More than one group answered.
    several_groups: bool,
    /// The highest commit number.
    commit: u64,
}

impl Health {
    pub(super) fn of(answers: &[Answer]) -> Health {
        let reports: Vec<&StatusReport> = answers
            .iter()
            .filter_map(|answer| answer.report.as_ref().ok())
            .collect();
        let mut views: BTreeMap<u64, Vec<&StatusReport>> = BTreeMap::new();
        for report in reports.iter().filter(|report| report.status == "normal") {
            views.entry(report.view).or_default().push(report);
        }
        let (view, normal) = views
            .into_iter()
            .max_by_key(|(view, reports)| (reports.len(), *view))
            .unwrap_or_default();
        let mut groups: Vec<&String> = reports
            .iter()
            .filter_map(|report| report.group.as_ref())
            .collect();
        groups.sort();
        groups.dedup();
        Health {
            replicas: answers.len(),
            reachable: reports.len(),
            view,
            normal: normal.len(),
            primaries: normal
                .iter()
                .filter(|report| report.role == "primary")
                .map(|report| report.index)
                .collect(),
            several_groups: groups.len() > 1,
            commit: reports
                .iter()
                .map(|report| report.commit)
                .max()
                .unwrap_or(0),
        }
    }

    /// A quorum is normal in one view, with one primary.
    pub(super) fn is_healthy(&self) -> bool {
        self.normal > self.replicas / 2 && self.primaries.len() == 1 && !self.several_groups
    }

    /// How many ops this replica's commit number is behind the highest.
    pub(super) fn behind(&self, report: &StatusReport) -> u64 {
        self.commit - report.commit.min(self.commit)
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Health {
            replicas,
            reachable,
            view,
            normal,
            ..
        } = self;
        if self.several_groups {
            return write!(
                f,
                "the replicas that answered belong to different groups: check the configuration"
            );
        }
        if self.is_healthy() {
            return write!(
                f,
                "{normal} of {replicas} are normal in view {view}; the primary is {}",
                self.primaries[0]
            );
        }
        let quorum = replicas / 2 + 1;
        write!(
            f,
            "the group can't serve: {reachable} of {replicas} answered, {normal} normal in one view, "
        )?;
        match self.primaries.as_slice() {
            _ if *normal < quorum => write!(f, "{quorum} are needed"),
            [] => write!(f, "its primary is not among them"),
            several => write!(f, "but {} say that they are its primary", several.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(reports: &[(&str, u64, &str)]) -> Vec<Answer> {
        let report = |(index, (status, view, role)): (usize, &(&str, u64, &str))| {
            let report = StatusReport {
                index: index as u8,
                status: (*status).into(),
                view: *view,
                role: (*role).into(),
                commit: 10 + index as u64,
                ..StatusReport::default()
            };
            let report = if status.is_empty() {
                Err("no answer".into())
            } else {
                Ok(report)
            };
            Answer {
                index,
                address: String::new(),
                report,
            }
        };
        reports.iter().enumerate().map(report).collect()
    }

    fn healthy(reports: &[(&str, u64, &str)]) -> bool {
        Health::of(&answers(reports)).is_healthy()
    }

    #[test]
    fn a_quorum_with_its_primary_is_enough() {
        assert!(healthy(&[
            ("normal", 3, "primary"),
            ("normal", 3, "backup"),
            ("normal", 3, "backup")
        ]));
        assert!(healthy(&[
            ("normal", 3, "primary"),
            ("", 0, ""),
            ("normal", 3, "backup")
        ]));
        assert!(healthy(&[
            ("normal", 2, "primary"),
            ("normal", 3, "primary"),
            ("normal", 3, "backup")
        ]));
    }

    #[test]
    fn anything_less_is_not() {
        assert!(!healthy(&[
            ("normal", 3, "primary"),
            ("", 0, ""),
            ("", 0, "")
        ]));
        assert!(!healthy(&[
            ("", 0, ""),
            ("normal", 3, "backup"),
            ("normal", 3, "backup")
        ]));
        assert!(!healthy(&[
            ("normal", 3, "primary"),
            ("normal", 4, "backup"),
            ("view-change", 5, "backup")
        ]));
        assert!(!healthy(&[]));
    }

    #[test]
    fn two_groups_are_never_healthy() {
        let mut answers = answers(&[
            ("normal", 0, "primary"),
            ("normal", 0, "backup"),
            ("normal", 0, "backup"),
        ]);
        for (answer, group) in answers.iter_mut().zip(["aa", "aa", "bb"]) {
            answer.report.as_mut().unwrap().group = Some(group.into());
        }
        assert!(!Health::of(&answers).is_healthy());
    }

    #[test]
    fn behind_counts_from_the_highest_commit() {
        let answers = answers(&[("normal", 0, "primary"), ("normal", 0, "backup")]);
        let health = Health::of(&answers);
        let behind: Vec<u64> = answers
            .iter()
            .map(|answer| health.behind(answer.report.as_ref().unwrap()))
            .collect();
        assert_eq!(behind, [1, 0]);
    }
}
