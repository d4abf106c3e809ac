use std::{error::Error, fmt, time::Duration};

/// A configuration that cannot work. It names the value and the fix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    value: Box<str>,
    problem: &'static str,
}

impl ConfigError {
    pub(crate) fn new(value: &str, problem: &'static str) -> Self {
        Self { value: value.into(), problem }
    }
}

/// Checks that a timeout is longer than zero.
pub(crate) fn nonzero(timeout: Duration) -> Result<Duration, ConfigError> {
    if timeout.is_zero() {
        return Err(ConfigError::new("0", "use a longer timeout, or `Duration::MAX` for none"));
    }
    Ok(timeout)
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.value {
            "" => f.write_str(self.problem),
            value => write!(f, "`{}`: {}", value.escape_debug(), self.problem),
        }
    }
}

impl Error for ConfigError {}
