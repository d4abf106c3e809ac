//! The separate layers: the guard with fewer steps. Each parses the handshake by itself, because a
//! layer between two of them may change the request.

mod confirm_upgrade;
mod origin_check;
mod request_check;
mod responder;
mod token_check;
mod version_check;

pub use self::{
    confirm_upgrade::{ConfirmUpgrade, ConfirmUpgradeLayer},
    origin_check::{OriginCheck, OriginCheckLayer},
    request_check::{RequestCheck, RequestCheckLayer},
    responder::{Responder, ResponderLayer},
    token_check::{TokenCheck, TokenCheckLayer},
    version_check::{VersionCheck, VersionCheckLayer},
};
