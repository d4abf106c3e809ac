use std::future::Future;

/// Where the task of a connection runs: in its span.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    #[cfg(feature = "tracing")]
    pub(crate) span: Option<tracing::Span>,
}

impl Scope {
    pub(crate) fn of(_extensions: &http::Extensions) -> Self {
        Self {
            #[cfg(feature = "tracing")]
            span: _extensions.get::<tracing::Span>().cloned(),
        }
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        #[cfg(feature = "tracing")]
        if let Some(span) = &self.span {
            tokio::spawn(tracing::Instrument::instrument(task, span.clone()));
            return;
        }
        tokio::spawn(task);
    }
}

/// An upgraded connection, as long as it is open.
pub(crate) struct Live {
    #[cfg(feature = "metrics")]
    since: std::time::Instant,
    /// The recorder's that there was at first.
    #[cfg(feature = "metrics")]
    connections: ::metrics::Gauge,
}

impl Live {
    pub(crate) fn open() -> Self {
        Self {
            #[cfg(feature = "metrics")]
            since: std::time::Instant::now(),
            #[cfg(feature = "metrics")]
            connections: {
                let connections = ::metrics::gauge!(super::metrics::CONNECTIONS);
                connections.increment(1);
                connections
            },
        }
    }
}

#[cfg(feature = "metrics")]
impl Drop for Live {
    fn drop(&mut self) {
        self.connections.decrement(1);
        ::metrics::histogram!(super::metrics::CONNECTION).record(self.since.elapsed());
    }
}
