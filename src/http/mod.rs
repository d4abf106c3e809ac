//! Values and syntax of HTTP and RFC 6455. Nothing here knows a policy, a rejection or a layer.

pub(crate) mod accept_key;
pub(crate) mod field;
pub(crate) mod host;
pub(crate) mod origin;
pub(crate) mod transport;

pub use self::{
    accept_key::accept_key,
    host::{Host, InvalidHost},
    origin::{InvalidOrigin, Origin, RequestOrigin},
    transport::{ConnectProtocol, Transport, is_upgrade_request},
};
