use std::{error::Error, fmt, time::Duration};

/// A configuration that can't work. It names the value and what to do about it.
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

/// A time that something can be done in.
pub(crate) fn nonzero(time: Duration) -> Result<Duration, ConfigError> {
    match time.is_zero() {
        true => Err(ConfigError::new("0", "no time is left then; use `Duration::MAX` for no bound")),
        false => Ok(time),
    }
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
