//! Differential testing: [`generate`] makes requests, valid ones and ones that nearly are; [`oracle`] says what must come of them;
//! [`connection`] says what does.

pub mod connection;
pub mod generate;
pub mod oracle;
pub mod policies;
mod pools;
pub mod properties;
