//! How a model runs, and what it calls.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    fmt::Debug,
    future::{Future, ready},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use http::{Request, Response, StatusCode};
use loom::{
    model::Builder,
    thread::{self, JoinHandle},
};
use models::{
    AllowOrigin, GuardLayer, Permit, Rejection,
    test_util::{HandshakeRequest, handshake},
};
use tower::{Layer, Service, service_fn};

/// Longer than any model runs.
pub const LONG: Duration = Duration::from_secs(1000);

/// Runs `model` in every order of its threads' steps, and asserts that its results are `expected`: no others, and all of them.
#[track_caller]
pub fn explore<T: Debug + Ord + Send + 'static>(
    expected: impl IntoIterator<Item = T>,
    model: impl Fn() -> T + Send + Sync + 'static,
) {
    explore_up_to(usize::MAX, expected, model);
}

/// Runs only the orders in which threads that need not wait are interrupted at most so many times. For models with too many orders.
#[track_caller]
pub fn explore_up_to<T: Debug + Ord + Send + 'static>(
    preemptions: usize,
    expected: impl IntoIterator<Item = T>,
    model: impl Fn() -> T + Send + Sync + 'static,
) {
    let results = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = Arc::clone(&results);
    let orders = Orders { begin: Instant::now(), number: Arc::default() };
    let number = Arc::clone(&orders.number);
    let model = Arc::new(model);
    let mut builder = Builder::new();
    builder.preemption_bound = (preemptions < usize::MAX).then_some(preemptions);
    builder.max_branches = 10_000;
    builder.check(move || {
        number.fetch_add(1, SeqCst);
        let model = Arc::clone(&model);
        let result = start(move || model()).join().unwrap();
        seen.lock().unwrap().insert(result);
    });
    assert_eq!(*results.lock().unwrap(), expected.into_iter().collect());
}

/// Says how many orders were run, also when a model fails.
struct Orders {
    begin: Instant,
    number: Arc<AtomicU32>,
}

impl Drop for Orders {
    fn drop(&mut self) {
        println!("{} orders in {:.1?}", self.number.load(SeqCst), self.begin.elapsed());
    }
}

/// A thread with a stack for more than a few atomics.
pub fn start<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    thread::Builder::new().stack_size(64 * 1024).spawn(run).unwrap()
}

/// The result of a future that need not wait.
#[track_caller]
pub fn now<F: Future>(future: F) -> F::Output {
    let Poll::Ready(output) = poll(future) else { panic!("the future waits") };
    output
}

pub fn poll<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

pub fn guard() -> GuardLayer {
    GuardLayer::new(AllowOrigin::same_origin().allow_missing())
}

/// A handshake through `guard`: its permit, or the code of its rejection.
pub fn enter(guard: &GuardLayer) -> Result<Permit, &'static str> {
    enter_with(guard, handshake("/"))
}

pub fn enter_with(guard: &GuardLayer, request: HandshakeRequest) -> Result<Permit, &'static str> {
    let accept = service_fn(|mut request: Request<()>| {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.extensions_mut().insert(Permit::claim(request.extensions_mut()));
        ready(Ok::<_, Infallible>(response))
    });
    let Ok(mut response) = now(guard.layer(accept).call(request.build(())));
    match response.extensions_mut().remove::<Option<Permit>>() {
        Some(permit) => Ok(permit.expect("the guard has permits")),
        None => {
            Err(response.extensions().get::<Rejection>().expect("nothing else fails").kind().code())
        }
    }
}
