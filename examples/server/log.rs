//! The log, on stderr. The page shows what its attempts have caused in it.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

/// The operator reads these lines: the cause of each rejection, and the fix.
pub(crate) fn init() {
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::WARN)
        .with_writer(|| Log)
        .without_time()
        .init();
}

const MAX_KEPT: usize = 16 * 1024;

/// The lines of one request.
#[derive(Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<Vec<u8>>>);

tokio::task_local! {
    static KEPT: Kept;
}

impl Kept {
    /// Keeps what `work` logs.
    pub(crate) fn during<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        KEPT.scope(self.clone(), work)
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&kept).lines().map(|line| line.trim().to_owned()).collect()
    }

    fn add(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() + bytes.len() <= MAX_KEPT {
            kept.extend_from_slice(bytes);
        }
    }
}

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Only attempts are kept.
        KEPT.try_with(|kept| kept.add(bytes)).ok();
        io::stderr().write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
