//! Policies from configuration files and the environment.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};

use crate::{
    config::ConfigError,
    connection::ConnectionLimit,
    guard::GuardLayer,
    host::AllowHost,
    origin::AllowOrigin,
    subprotocol::Subprotocols,
    token::{StaticTokens, TokenPolicy, TokenSource, VerifyToken},
};

/// The settings of a guard, from a configuration file or the environment: in every format of serde.
///
/// | key | value |
/// |---|---|
/// | `origins` | a list of patterns: [`AllowOrigin::list`] |
/// | `same_origin` | a boolean: [`AllowOrigin::same_origin`] |
/// | `public_origin` | an origin: [`AllowOrigin::public_origin`] |
/// | `allow_missing_origin`, `allow_null_origin` | booleans: [`AllowOrigin::allow_missing`], [`AllowOrigin::allow_null`] |
/// | `no_browsers` | a boolean, without other keys about origins: [`AllowOrigin::no_browsers`] |
/// | `dangerous_any_origin` | a boolean: [`AllowOrigin::dangerous_any`] |
/// | `hosts` | a list of patterns: [`AllowHost::list`] |
/// | `loopback_hosts` | a boolean: [`AllowHost::loopback`] |
/// | `subprotocols` | a list of names: [`Subprotocols::list`] |
/// | `accept_unmatched_subprotocols` | a boolean: [`GuardLayer::accept_unmatched_subprotocols`] |
/// | `token_sources` | a list of [`TokenSource`]s as text; `authorization` by default |
/// | `first_token_source_wins` | a boolean: [`TokenPolicy::first_source_wins`] |
/// | `max_token_length` | bytes, 8192 by default: [`TokenPolicy::max_length`] |
/// | `max_connections` | a number: [`ConnectionLimit::total`] |
/// | `check_timeout_ms` | milliseconds, 10000 by default: [`GuardLayer::check_timeout`] |
///
/// The guide to [policies](crate::guide::policies) shows what else can change.
///
/// Extensions have no key, because the code of the server must know what its codec can do.
///
/// At least one key must allow somebody. Every value may be a string, as in the environment:
/// `true`, `10`, or a list such as `a, b`. An unknown key is an error, so pass only the variables
/// of the environment that begin with a prefix of yours, without it and in lower case.
///
/// Errors name the key and the value. For a configuration of your own, [`AllowOrigin`],
/// [`AllowHost`] and [`Subprotocols`] are read from lists, and [`TokenSource`] from its text.
///
/// ```
/// use tower_ws_guard::{Settings, StaticTokens};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let settings: Settings = serde_json::from_str(
///     r#"{
///         "origins": ["https://app.example.com", "https://*.preview.example.com"],
///         "hosts": "chat.example.com",
///         "token_sources": ["cookie:session", "header:X-API-Key"],
///         "max_connections": 10000
///     }"#,
/// )?;
/// let tokens = StaticTokens::new([("s3cr3t", "alice")])?;
/// let guard = settings.guard_with_token(tokens)?;
///
/// let wrong = serde_json::from_str::<Settings>(r#"{ "origins": "https://a.example/" }"#);
/// let error = wrong.unwrap_err().to_string();
/// assert!(error.starts_with("origins: `https://a.example/`: an origin has no path"), "{error}");
/// # let _ = guard;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Settings {
    origins: AllowOrigin,
    hosts: Option<AllowHost>,
    subprotocols: Option<Subprotocols>,
    accept_unmatched_subprotocols: bool,
    token_sources: Vec<TokenSource>,
    first_token_source_wins: bool,
    max_token_length: usize,
    max_connections: Option<usize>,
    check_timeout: Duration,
    has_token_keys: bool,
}

impl Settings {
    /// A guard with these settings, and without a token policy.
    ///
    /// # Errors
    ///
    /// The settings have a key about tokens, so a guard without a token policy would be open.
    pub fn guard(&self) -> Result<GuardLayer, ConfigError> {
        if self.has_token_keys {
            return Err(ConfigError::new(
                "",
                "the settings have a key about tokens; make the guard with \
                 `Settings::guard_with_token`",
            ));
        }
        self.without_token()
    }

    /// A guard with these settings, which verifies tokens with `verifier`.
    ///
    /// # Errors
    ///
    /// None that the settings can cause: they were checked when they were read.
    pub fn guard_with_token<V: VerifyToken>(&self, verifier: V) -> Result<GuardLayer, ConfigError> {
        let guard = self.without_token()?;
        guard.token(self.token_policy(verifier)?)
    }

    fn without_token(&self) -> Result<GuardLayer, ConfigError> {
        let mut guard = GuardLayer::new(self.origins.clone()).check_timeout(self.check_timeout)?;
        if let Some(hosts) = &self.hosts {
            guard = guard.allow_host(hosts.clone());
        }
        if let Some(subprotocols) = &self.subprotocols {
            guard = guard.subprotocols(subprotocols.clone());
        }
        if self.accept_unmatched_subprotocols {
            guard = guard.accept_unmatched_subprotocols();
        }
        if let Some(max) = self.max_connections {
            guard = guard.limit(ConnectionLimit::total(max)?);
        }
        Ok(guard)
    }

    fn token_policy<V: VerifyToken>(
        &self,
        verifier: V,
    ) -> Result<TokenPolicy<V::Claims>, ConfigError> {
        let policy = TokenPolicy::from_sources(self.token_sources.iter().cloned(), verifier)?;
        let policy = policy.max_length(self.max_token_length)?;
        Ok(if self.first_token_source_wins { policy.first_source_wins() } else { policy })
    }
}

impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let values = deserializer.deserialize_map(Values::default())?;
        values.into_settings().map_err(D::Error::custom)
    }
}

/// Policies as values of a configuration of your own: each is a list, or a text with commas.
macro_rules! deserialize_lists {
    ($($Policy:ident),*) => {$(
        impl<'de> Deserialize<'de> for $Policy {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let list = Value::deserialize(deserializer)?.into_list().map_err(D::Error::custom)?;
                $Policy::list(list).map_err(D::Error::custom)
            }
        }
    )*};
}

deserialize_lists!(AllowOrigin, AllowHost, Subprotocols);

impl<'de> Deserialize<'de> for TokenSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A value of any type, so that an error can name its key.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Value {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<String>),
    Other(IgnoredAny),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "`{value}`"),
            Self::Integer(value) => write!(f, "`{value}`"),
            Self::Float(value) => write!(f, "`{value}`"),
            Self::Text(value) => write!(f, "`{}`", value.escape_debug()),
            Self::List(values) => write!(f, "{values:?}"),
            Self::Other(_) => f.write_str("the value"),
        }
    }
}

impl Value {
    fn into_list(self) -> Result<Vec<String>, String> {
        match self {
            Self::List(list) => Ok(list),
            Self::Text(text) => {
                let elements = text.split(',').map(str::trim).filter(|element| !element.is_empty());
                Ok(elements.map(str::to_owned).collect())
            }
            other => Err(format!("{other}: use a list of texts")),
        }
    }
}

#[derive(Default)]
struct Values(BTreeMap<String, Value>);

/// A map of serde takes the last of two values with the same key.
impl<'de> Visitor<'de> for Values {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of settings")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some((key, value)) = map.next_entry::<String, _>()? {
            if self.0.contains_key(&key) {
                let key = key.escape_debug();
                return Err(A::Error::custom(format!("{key}: the key is there twice")));
            }
            self.0.insert(key, value);
        }
        Ok(self)
    }
}

impl Values {
    fn into_settings(mut self) -> Result<Settings, String> {
        let no_browsers = self.bool("no_browsers")?;
        let has_token_keys = ["token_sources", "first_token_source_wins", "max_token_length"]
            .iter()
            .any(|key| self.0.contains_key(*key));
        let keys = [
            "origins",
            "same_origin",
            "public_origin",
            "allow_missing_origin",
            "allow_null_origin",
            "dangerous_any_origin",
        ];
        let is_false = |value: &Value| match value {
            Value::Bool(value) => !value,
            Value::Text(text) => text == "false",
            _ => false,
        };
        let has_other =
            keys.iter().any(|key| self.0.get(*key).is_some_and(|value| !is_false(value)));
        let origins = match (no_browsers, has_other) {
            (true, true) => return Err(format!("no_browsers: leave out {}", keys.join(", "))),
            (true, false) => {
                keys.iter().for_each(|key| drop(self.0.remove(*key)));
                AllowOrigin::no_browsers()
            }
            (false, _) => self.origins()?,
        };
        let listed = self.list("hosts")?.map(AllowHost::list);
        let listed = listed.transpose().map_err(|error| format!("hosts: {error}"))?;
        let loopback = self.bool("loopback_hosts")?.then(AllowHost::loopback);
        let subprotocols = self.list("subprotocols")?.map(Subprotocols::list);
        let sources = self.list("token_sources")?.map(|sources| parse_sources(&sources));
        let timeout = self.number("check_timeout_ms")?.unwrap_or(10_000);
        let settings = Settings {
            origins,
            hosts: match (listed, loopback) {
                (Some(listed), Some(loopback)) => Some(listed.or(loopback)),
                (listed, loopback) => listed.or(loopback),
            },
            subprotocols: subprotocols
                .transpose()
                .map_err(|error| format!("subprotocols: {error}"))?,
            accept_unmatched_subprotocols: self.bool("accept_unmatched_subprotocols")?,
            token_sources: sources
                .transpose()?
                .unwrap_or_else(|| vec![TokenSource::authorization()]),
            first_token_source_wins: self.bool("first_token_source_wins")?,
            max_token_length: self.number("max_token_length")?.unwrap_or(8192) as usize,
            max_connections: self.number("max_connections")?.map(|max| max as usize),
            check_timeout: Duration::from_millis(timeout),
            has_token_keys,
        };
        let nobody = StaticTokens::<()>::new::<&str>([]);
        let policy = nobody.and_then(|nobody| settings.token_policy(nobody));
        drop(policy.map_err(|error| format!("token_sources: {error}"))?);
        match self.0.keys().next() {
            Some(unknown) => Err(format!("{}: there is no such key", unknown.escape_debug())),
            None => Ok(settings),
        }
    }

    fn origins(&mut self) -> Result<AllowOrigin, String> {
        let mut origins = AllowOrigin::default();
        let mut is_empty = true;
        if let Some(listed) = self.list("origins")? {
            is_empty &= listed.is_empty();
            let listed = AllowOrigin::list(listed).map_err(|error| format!("origins: {error}"))?;
            origins = origins.or(listed);
        }
        if let Some(public) = self.text("public_origin")? {
            is_empty = false;
            let public = AllowOrigin::public_origin(&public)
                .map_err(|error| format!("public_origin: {error}"))?;
            origins = origins.or(public);
        }
        if self.bool("same_origin")? {
            is_empty = false;
            origins = origins.or(AllowOrigin::same_origin());
        }
        if self.bool("allow_missing_origin")? {
            is_empty = false;
            origins = origins.allow_missing();
        }
        if self.bool("allow_null_origin")? {
            is_empty = false;
            origins = origins.allow_null();
        }
        if self.bool("dangerous_any_origin")? {
            is_empty = false;
            origins = origins.or(AllowOrigin::dangerous_any());
        }
        if is_empty {
            return Err("origins: nobody could connect; list the origins of your pages, or set \
                        `same_origin`, `public_origin` or `no_browsers`"
                .to_owned());
        }
        Ok(origins)
    }

    fn bool(&mut self, key: &str) -> Result<bool, String> {
        match self.0.remove(key) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(value),
            Some(Value::Text(text)) if text == "true" => Ok(true),
            Some(Value::Text(text)) if text == "false" => Ok(false),
            Some(other) => Err(format!("{key}: {other}: use `true` or `false`")),
        }
    }

    /// At least 1, and at most what fits into 32 bits.
    fn number(&mut self, key: &str) -> Result<Option<u64>, String> {
        let number = match self.0.remove(key) {
            None => return Ok(None),
            Some(Value::Integer(number)) => u32::try_from(number).map_err(|_| number.to_string()),
            Some(Value::Text(text)) => text.parse::<u32>().map_err(|_| text),
            Some(other) => return Err(format!("{key}: {other}: use a whole number")),
        };
        match number {
            Ok(number @ 1..) => Ok(Some(number.into())),
            Ok(_) => Err(format!("{key}: `0`: use a number of at least 1")),
            Err(text) => {
                Err(format!("{key}: `{}`: use a number of 1 to {}", text.escape_debug(), u32::MAX))
            }
        }
    }

    fn text(&mut self, key: &str) -> Result<Option<String>, String> {
        match self.0.remove(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(other) => Err(format!("{key}: {other}: use a text")),
        }
    }

    fn list(&mut self, key: &str) -> Result<Option<Vec<String>>, String> {
        let list = self.0.remove(key).map(Value::into_list);
        list.transpose().map_err(|error| format!("{key}: {error}"))
    }
}

fn parse_sources(sources: &[String]) -> Result<Vec<TokenSource>, String> {
    let sources = sources.iter().map(|source| source.parse());
    sources
        .collect::<Result<_, _>>()
        .map_err(|error: ConfigError| format!("token_sources: {error}"))
}
