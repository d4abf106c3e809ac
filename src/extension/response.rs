//! The check of the extensions in a response (RFC 6455 9.1).

use http::{HeaderMap, HeaderValue, header::SEC_WEBSOCKET_EXTENSIONS};

use super::{deflate, grammar::parse_lines};
use crate::{
    http::field::Escaped,
    rejection::{Rejection, RejectionKind},
};

/// Checks that a response names only extensions that the client offered, each once and in a form
/// that the client accepts.
pub(crate) fn check_response(
    offered: Option<&HeaderValue>,
    response: &HeaderMap,
) -> Result<(), Rejection> {
    if !response.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
        return Ok(());
    }
    let lines = response.get_all(SEC_WEBSOCKET_EXTENSIONS);
    let fault = |problem: String| {
        Err(Rejection::new(RejectionKind::ExtensionNotOffered)
            .with_header_value(lines.iter().next())
            .with_source(problem))
    };
    let mut accepted = Vec::new();
    let list = parse_lines(lines.iter().map(HeaderValue::as_bytes), |extension| {
        accepted.push(extension);
        Ok(())
    });
    if let Err(invalid) = list {
        return fault(format!("the response is malformed: {invalid}"));
    }
    for (i, accepted_here) in accepted.iter().enumerate() {
        let name = accepted_here.name();
        let shown = Escaped(name.as_bytes());
        if accepted[..i].iter().any(|before| before.name() == name) {
            return fault(format!("the response names `{shown}` twice"));
        }
        let (mut is_offered, mut is_accepted) = (false, false);
        // A malformed offer offers nothing behind the fault.
        let _ = parse_lines(offered.map(HeaderValue::as_bytes), |extension| {
            if extension.name() == name {
                is_offered = true;
                is_accepted |= deflate::is_accepted(extension, *accepted_here);
            }
            Ok(())
        });
        if !is_offered {
            return fault(format!("the client did not offer `{shown}`"));
        }
        if !is_accepted {
            return fault(format!("the parameters of `{shown}` fit no offer of the client"));
        }
    }
    Ok(())
}
