//! The separate layers: the guard with fewer steps. Each parses the handshake by itself, because a
//! layer between two of them may change the request.

mod confirm_upgrade;
mod origin_check;
mod request_check;
mod responder;
#[cfg(feature = "token")]
mod token_check;
mod version_check;

#[cfg(feature = "token")]
pub use self::token_check::{TokenCheck, TokenCheckLayer};
pub use self::{
    confirm_upgrade::{ConfirmUpgrade, ConfirmUpgradeLayer},
    origin_check::{OriginCheck, OriginCheckLayer},
    request_check::{RequestCheck, RequestCheckLayer},
    responder::{Responder, ResponderLayer},
    version_check::{VersionCheck, VersionCheckLayer},
};
