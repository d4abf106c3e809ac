//! Somebody listens: a subscriber that writes lines, and the recorder of Prometheus.

use tower::{Layer, service_fn};

use crate::{
    Case, Operation, app, case, handshake,
    input::{self, HANDSHAKE, ORDINARY},
    service::{OK, call, call_and_spawn},
};

const LISTENED: &str = "`GuardLayer` with a subscriber at INFO and a recorder";

pub(crate) const CASES: &[Case] = &[
    case(LISTENED, "ordinary request", || heard(call(app::guard().layer(OK), ORDINARY, 200))),
    case(LISTENED, "rejection of a foreign origin", || {
        heard(call(app::guard().layer(OK), input::foreign_origin(), 403))
    }),
    case(LISTENED, "handshake, accepted by the service", || {
        heard(call(app::guard().respond().layer(handshake::accept()), HANDSHAKE, 101))
    }),
    case(LISTENED, "handshake, alone, before an empty 101", || {
        heard(call(app::guard().layer(service_fn(handshake::claim)), HANDSHAKE, 101))
    }),
    case(LISTENED, "handshake on an axum route, accepted by the handler", || {
        heard(call_and_spawn(app::axum_guard_responds(), HANDSHAKE, 101))
    }),
];

#[cfg(not(feature = "observed"))]
fn heard(_: Box<dyn Operation>) -> Box<dyn Operation> {
    panic!("needs the feature `observed`")
}

#[cfg(feature = "observed")]
fn heard(operation: Box<dyn Operation>) -> Box<dyn Operation> {
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO);
    Box::new(Heard {
        operation,
        subscriber: subscriber.with_writer(std::io::sink).finish().into(),
        recorder: metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder(),
    })
}

#[cfg(feature = "observed")]
struct Heard {
    operation: Box<dyn Operation>,
    subscriber: tracing::Dispatch,
    recorder: metrics_exporter_prometheus::PrometheusRecorder,
}

#[cfg(feature = "observed")]
impl Operation for Heard {
    fn prepare(&mut self, count: usize) {
        self.operation.prepare(count);
    }

    fn run(&mut self) {
        tracing::dispatcher::with_default(&self.subscriber, || {
            metrics::with_local_recorder(&self.recorder, || self.operation.run());
        });
    }
}
