use std::future::Future;

/// The span of a connection, in which its task runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectionSpan {
    #[cfg(feature = "tracing")]
    span: Option<tracing::Span>,
}

impl ConnectionSpan {
    pub(crate) const NONE: Self = Self {
        #[cfg(feature = "tracing")]
        span: None,
    };

    pub(crate) const fn is_none(&self) -> bool {
        #[cfg(feature = "tracing")]
        return self.span.is_none();
        #[cfg(not(feature = "tracing"))]
        true
    }

    pub(crate) fn new(_extensions: &http::Extensions) -> Self {
        Self {
            #[cfg(feature = "tracing")]
            span: _extensions.get::<tracing::Span>().cloned(),
        }
    }

    #[cfg(feature = "tracing")]
    pub(crate) const fn get(&self) -> Option<&tracing::Span> {
        self.span.as_ref()
    }

    pub(crate) fn spawn(self, task: impl Future<Output = ()> + Send + 'static) {
        #[cfg(feature = "tracing")]
        if let Some(span) = self.span {
            tokio::spawn(tracing::Instrument::instrument(task, span));
            return;
        }
        tokio::spawn(task);
    }
}

/// Counts an upgraded connection until it is dropped.
pub(crate) struct OpenConnection {
    #[cfg(feature = "metrics")]
    since: std::time::Instant,
    /// A gauge of the recorder that was installed at the start.
    #[cfg(feature = "metrics")]
    connections: ::metrics::Gauge,
}

impl OpenConnection {
    pub(crate) fn start() -> Self {
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
impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.connections.decrement(1);
        ::metrics::histogram!(super::metrics::CONNECTION_DURATION).record(self.since.elapsed());
    }
}
