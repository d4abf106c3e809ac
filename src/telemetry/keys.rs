use std::{error::Error, time::Duration};

/// Records the fetches of one set of keys.
pub(crate) struct KeyFetches {
    #[cfg(any(feature = "tracing", feature = "metrics"))]
    name: std::sync::Arc<str>,
}

impl KeyFetches {
    pub(crate) fn new(_name: &std::sync::Arc<str>) -> Self {
        Self {
            #[cfg(any(feature = "tracing", feature = "metrics"))]
            name: std::sync::Arc::clone(_name),
        }
    }

    pub(crate) fn succeeded(&self, _keys: usize) {
        #[cfg(feature = "metrics")]
        super::metrics::count_key_fetch(&self.name, true, Some(std::time::SystemTime::now()));
        #[cfg(feature = "tracing")]
        super::log::log_key_fetch(&self.name, _keys);
    }

    /// `age` is that of the last keys, `pause` the time to the next fetch.
    pub(crate) fn failed(
        &self,
        _error: &(dyn Error + 'static),
        _age: Option<Duration>,
        _pause: Duration,
    ) {
        #[cfg(feature = "metrics")]
        {
            // So that there is something to alert on if no fetch ever succeeds.
            let never = _age.is_none().then_some(std::time::SystemTime::UNIX_EPOCH);
            super::metrics::count_key_fetch(&self.name, false, never);
        }
        #[cfg(feature = "tracing")]
        super::log::log_failed_key_fetch(&self.name, _error, _age, _pause);
    }
}
