//! Levels, versions and what a namespace's labels ask for.

use std::fmt;

use crate::registry::field_error::FieldError;

/// The minor version of Kubernetes whose checks are the latest here.
const LATEST: u32 = 35;
/// What a version of a policy must look like.
const VERSION_FORM: &str = "must be \"latest\" or \"v1.x\"";

/// How much pods are kept from, from nothing to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// A level with the version of Kubernetes whose checks it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) level: Level,
    /// `None` for the latest.
    minor: Option<u32>,
}

/// What is done about pods that break a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Enforce,
    Audit,
    Warn,
}

/// The policies of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Policies {
    pub(super) enforce: Policy,
    pub(super) audit: Policy,
    pub(super) warn: Policy,
}

impl Level {
    /// # Errors
    /// `text` names none.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "privileged" => Ok(Self::Privileged),
            "baseline" => Ok(Self::Baseline),
            "restricted" => Ok(Self::Restricted),
            _ => Err("must be one of privileged, baseline, restricted"),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        })
    }
}

impl Policy {
    /// The latest version of a level.
    pub(super) const fn latest(level: Level) -> Self {
        Self { level, minor: None }
    }

    /// The version of the checks that count.
    pub(super) fn minor(&self) -> u32 {
        self.minor.unwrap_or(LATEST).min(LATEST)
    }

    /// # Errors
    /// `text` is no version.
    pub(super) fn set_version(&mut self, text: &str) -> Result<(), &'static str> {
        self.minor = match text {
            "latest" => None,
            text => {
                let minor = text.strip_prefix("v1.").ok_or(VERSION_FORM)?;
                let is_plain = minor == "0" || !minor.starts_with(['0', '+']);
                Some(
                    minor
                        .parse()
                        .ok()
                        .filter(|_| is_plain)
                        .ok_or(VERSION_FORM)?,
                )
            }
        };
        Ok(())
    }

    /// Whether nothing can break it.
    pub(super) fn allows_everything(&self) -> bool {
        self.level == Level::Privileged
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.minor {
            Some(minor) => write!(f, "{}:v1.{minor}", self.level),
            None => write!(f, "{}:latest", self.level),
        }
    }
}

impl Mode {
    pub(super) const ALL: [Self; 3] = [Self::Enforce, Self::Audit, Self::Warn];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Audit => "audit",
            Self::Warn => "warn",
        }
    }

    /// The labels of its level and of its version.
    fn labels(self) -> [&'static str; 2] {
        match self {
            Self::Enforce => [
                "pod-security.kubernetes.io/enforce",
                "pod-security.kubernetes.io/enforce-version",
            ],
            Self::Audit => [
                "pod-security.kubernetes.io/audit",
                "pod-security.kubernetes.io/audit-version",
            ],
            Self::Warn => [
                "pod-security.kubernetes.io/warn",
                "pod-security.kubernetes.io/warn-version",
            ],
        }
    }
}

impl Default for Policies {
    fn default() -> Self {
        let all = Policy::latest(Level::Privileged);
        Self {
            enforce: all.clone(),
            audit: all.clone(),
            warn: all,
        }
    }
}

impl Policies {
    pub(super) fn of(&mut self, mode: Mode) -> &mut Policy {
        match mode {
            Mode::Enforce => &mut self.enforce,
            Mode::Audit => &mut self.audit,
            Mode::Warn => &mut self.warn,
        }
    }

    /// The policies of a namespace with these labels, and what is wrong with the labels. What cannot be read counts
    /// as the strictest.
    pub(super) fn read<'l>(
        &self,
        label: impl Fn(&str) -> Option<&'l str>,
    ) -> (Self, Vec<FieldError>) {
        let mut policies = self.clone();
        let mut errors = Vec::new();
        for mode in Mode::ALL {
            let [level, version] = mode.labels();
            let policy = policies.of(mode);
            let mut wrong = |label: &str, text: &str, why: &str| {
                let path = format!("metadata.labels[{label}]");
                errors.push(FieldError::invalid(path, text, why));
            };
            if let Some(text) = label(level) {
                policy.level = Level::parse(text).unwrap_or_else(|why| {
                    wrong(level, text, why);
                    Level::Restricted
                });
            }
            if let Some(text) = label(version)
                && let Err(why) = policy.set_version(text)
            {
                wrong(version, text, why);
            }
        }
        // Whoever only enforces wants to hear of it while the pods are still a template.
        let [enforce, warn] = [Mode::Enforce, Mode::Warn].map(|mode| label(mode.labels()[0]));
        if enforce.is_some() && warn.is_none() && policies.enforce.level > policies.warn.level {
            policies.warn = policies.enforce.clone();
        }
        (policies, errors)
    }

    pub(super) fn allow_everything(&self) -> bool {
        [&self.enforce, &self.audit, &self.warn]
            .iter()
            .all(|policy| policy.allows_everything())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(error: &FieldError) -> String {
        format!("{}: {}", error.path, error.message())
    }

    fn read(labels: &[(&str, &'static str)]) -> (Policies, Vec<String>) {
        let label = |name: &str| {
            let name = name.strip_prefix("pod-security.kubernetes.io/")?;
            let found = labels.iter().find(|(label, _)| *label == name);
            found.map(|(_, value)| *value)
        };
        let (policies, errors) = Policies::default().read(label);
        (policies, errors.iter().map(told).collect())
    }

    #[test]
    fn labels_say_what_is_enforced_and_what_is_warned_of() {
        assert!(read(&[]).0.allow_everything());
        let (policies, errors) = read(&[("enforce", "baseline"), ("enforce-version", "v1.24")]);
        assert_eq!(
            (policies.enforce.to_string(), errors),
            ("baseline:v1.24".into(), vec![])
        );
        assert_eq!(policies.warn, policies.enforce, "nobody said otherwise");
        assert!(policies.audit.allows_everything());
        let (policies, _) = read(&[("enforce", "restricted"), ("warn", "privileged")]);
        assert!(policies.warn.allows_everything());
        assert_eq!(Policy::latest(Level::Baseline).minor(), LATEST);
        let (policies, _) = read(&[("warn", "baseline"), ("warn-version", "v1.99")]);
        assert_eq!(
            policies.warn.minor(),
            LATEST,
            "what is not known yet is the latest"
        );
    }

    #[test]
    fn labels_that_cannot_be_read_are_the_strictest() {
        let (policies, errors) = read(&[
            ("enforce", "Baseline"),
            ("audit", ""),
            ("warn-version", "1.24"),
        ]);
        assert_eq!(policies.enforce.level, Level::Restricted);
        assert_eq!(policies.audit.level, Level::Restricted);
        let label = "metadata.labels[pod-security.kubernetes.io";
        let level = "must be one of privileged, baseline, restricted";
        assert_eq!(
            errors,
            [
                format!("{label}/enforce]: Invalid value: \"Baseline\": {level}"),
                format!("{label}/audit]: Invalid value: \"\": {level}"),
                format!("{label}/warn-version]: Invalid value: \"1.24\": {VERSION_FORM}"),
            ]
        );
        for version in ["v1.", "v1.x", "v1.01", "v1.+1", "v2.0", ""] {
            let (_, errors) = read(&[("enforce-version", version)]);
            assert_eq!(errors.len(), 1, "{version:?}");
        }
    }
}
