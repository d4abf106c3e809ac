//! A certificate in words.

use std::net::IpAddr;

use serde::Serialize;
use x509_parser::prelude::{ASN1Time, FromDer as _, GeneralName, X509Certificate, X509Name};

/// What a reader wants to know of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// The distinguished name of the owner.
    pub subject: String,
    /// The distinguished name of the authority.
    pub issuer: String,
    /// The names and addresses that it is for.
    pub names: Vec<String>,
    /// UNIX seconds.
    pub not_before: u64,
    /// UNIX seconds.
    pub not_after: u64,
    /// `not_before` and `not_after` in UTC.
    pub valid: (String, String),
    /// Whether it is its own issuer.
    pub self_signed: bool,
    /// `CA:TRUE`.
    pub is_ca: bool,
    /// The extended key usages, if there are any.
    pub usages: Vec<String>,
}

impl Certificate {
    pub(crate) fn parse(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.iter().flat_map(|extension| &extension.value.general_names);
        let names = names.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
            _ => None,
        });
        let validity = certificate.validity();
        let seconds = |time: i64| u64::try_from(time).unwrap_or_default();
        let (not_before, not_after) =
            (seconds(validity.not_before.timestamp()), seconds(validity.not_after.timestamp()));
        let usages = certificate.extended_key_usage().ok().flatten().map(|extension| {
            let usage = extension.value;
            [
                (usage.any, "any"),
                (usage.server_auth, "serverAuth"),
                (usage.client_auth, "clientAuth"),
                (usage.code_signing, "codeSigning"),
                (usage.email_protection, "emailProtection"),
                (usage.time_stamping, "timeStamping"),
                (usage.ocsp_signing, "OCSPSigning"),
            ]
            .into_iter()
            .filter(|(is_set, _)| *is_set)
            .map(|(_, name)| name.to_owned())
            .collect()
        });
        Some(Self {
            subject: name(certificate.subject()),
            issuer: name(certificate.issuer()),
            names: names.take(100).collect(),
            not_before,
            not_after,
            valid: (date(validity.not_before), date(validity.not_after)),
            self_signed: certificate.subject() == certificate.issuer(),
            is_ca: certificate.is_ca(),
            usages: usages.unwrap_or_default(),
        })
    }
}

fn name(name: &X509Name<'_>) -> String {
    let text = name.to_string();
    if text.is_empty() { "(empty)".into() } else { text }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
        _ => None,
    }
}

/// `2026-11-29 13:05 UTC`.
fn date(time: ASN1Time) -> String {
    let time = time.to_datetime();
    let (hour, minute, _) = time.to_hms();
    format!(
        "{}-{:02}-{:02} {hour:02}:{minute:02} UTC",
        time.year(),
        u8::from(time.month()),
        time.day()
    )
}
