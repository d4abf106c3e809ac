//! JSON Web Tokens: accepted tokens, reasons of rejections, and what inner services receive.

use std::{
    convert::Infallible,
    error::Error,
    iter::successors,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD},
};
use http::{Request, Response, request::Parts};
use jsonwebtoken::{Algorithm, EncodingKey, Header, crypto, encode, jwk::Jwk};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value, json};
use tower::{Layer, ServiceExt, service_fn};
use tower_ws_guard::{
    AllowOrigin, Claims, ConfigError, GuardLayer, Rejection, RejectionKind, Token, TokenCheckLayer,
    TokenPolicy, Validity, Verified, VerifyToken,
    token::jwt::{
        JwtAlgorithm::{self, *},
        JwtKey, JwtKeys, JwtVerifier,
    },
};

use crate::common::handshake;

// Keys for these tests only.
const SECRET: &[u8; 32] = b"7q!Zx9@Wv3%Kj8$Rt5&Np2*Hm6~Bd4=Y";
const RSA: &str = include_str!("../data/test_key_rsa.pem");
const RSA_PUBLIC: &str = include_str!("../data/test_key_rsa_public.pem");
const RSA_1024_PUBLIC: &str = include_str!("../data/test_key_rsa_1024_public.pem");
const P256: &str = include_str!("../data/test_key_p256.pem");
const P256_PUBLIC: &str = include_str!("../data/test_key_p256_public.pem");
const P384: &str = include_str!("../data/test_key_p384.pem");
const P384_PUBLIC: &str = include_str!("../data/test_key_p384_public.pem");
const ED25519: &str = include_str!("../data/test_key_ed25519.pem");
const ED25519_PUBLIC: &str = include_str!("../data/test_key_ed25519_public.pem");
const ATTACKER_P256: &str = include_str!("../data/test_key_attacker_p256.pem");

/// In the year 2100.
const FUTURE: u64 = 4_102_444_800;
const ACCEPTED: &str = "accepted";

// Reasons of rejections.
const EXPIRED: &str = "the token has expired (`exp`)";
const EARLY: &str = "the token is not valid yet (`nbf`); check the clocks of issuer and server";
const SIGNATURE: &str = "no configured key matches the signature";
const ISSUER: &str = "the token is from another issuer (`iss`)";
const ISSUERS: &str = "the claim `iss` is not a string";
const AUDIENCE: &str = "the token is for another audience (`aud`)";
const NO_AUDIENCE: &str = "the token has an audience (`aud`), and the verifier has none; set it with \
                           `JwtVerifier::audience`";
const MISMATCH: &str =
    "the claims do not match the type of the verifier: a claim has an unexpected value";
const CRIT: &str = "the token requires an extension (`crit`), and none is supported";
const NO_JWT: &str = "the token is not a JSON Web Token with a supported algorithm";
const UNREADABLE: &str = "the token is malformed: the claims must be a JSON object without repeated members, and \
                          all parts must be base64url without padding";
/// Follows the algorithm and the `kid` of the token.
const NO_KEY: &str = ", and no configured key matches; if the issuer rotates its keys, fetch them with `JwtKeys::refresh`";

/// The token is not at fault.
const NO_KEYS: &str = "the verifier has no keys yet; set them with `JwtKeys::replace`";

/// Repeated 32 times, it is not a point of Ed25519.
const NO_POINT: u8 = 7;

/// `exp` is 1300819380, in 2011: a verifier that reports expiry has accepted the signature.
const RFC_7515_PAYLOAD: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

fn signing_key(algorithm: Algorithm) -> EncodingKey {
    match algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
            EncodingKey::from_secret(SECRET).unwrap()
        }
        Algorithm::ES256 => EncodingKey::from_ec_pem(P256.as_bytes()).unwrap(),
        Algorithm::ES384 => EncodingKey::from_ec_pem(P384.as_bytes()).unwrap(),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(ED25519.as_bytes()).unwrap(),
        _ => EncodingKey::from_rsa_pem(RSA.as_bytes()).unwrap(),
    }
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Signs messages that `encode` would not create.
fn sign_as(algorithm: Algorithm, key: &EncodingKey, message: &str) -> String {
    format!("{message}.{}", crypto::sign(message.as_bytes(), key, algorithm).unwrap())
}

fn hs256(header: &str, payload: impl AsRef<[u8]>) -> String {
    sign_as(
        Algorithm::HS256,
        &EncodingKey::from_secret(SECRET).unwrap(),
        &format!("{}.{}", b64(header), b64(payload)),
    )
}

fn hs256_claims(payload: impl AsRef<[u8]>) -> String {
    hs256(r#"{"alg":"HS256"}"#, payload)
}

fn good() -> Value {
    json!({ "exp": FUTURE, "sub": "alice" })
}

/// A valid token, signed with the test key for `algorithm`.
fn token(algorithm: Algorithm) -> String {
    // RSA is slow without optimization.
    static RS256: LazyLock<String> = LazyLock::new(|| {
        encode(&Header::new(Algorithm::RS256), &good(), &signing_key(Algorithm::RS256)).unwrap()
    });
    match algorithm {
        Algorithm::RS256 => RS256.clone(),
        _ => encode(&Header::new(algorithm), &good(), &signing_key(algorithm)).unwrap(),
    }
}

fn secret_key() -> JwtKey {
    JwtKey::hmac(HS256, SECRET).unwrap()
}

fn verifier_with(keys: impl IntoIterator<Item = JwtKey>) -> JwtVerifier<Value> {
    JwtVerifier::new(JwtKeys::new(keys))
}

fn verifier() -> JwtVerifier<Value> {
    verifier_with([secret_key()])
}

/// The values of claims that are too long to appear in a reason by chance.
fn values(token: &str) -> Vec<String> {
    let payload = token
        .split('.')
        .nth(1)
        .and_then(|payload| URL_SAFE_NO_PAD.decode(payload).ok())
        .unwrap_or_default();
    let claims = serde_json::from_slice::<Map<String, Value>>(&payload).unwrap_or_default();
    let values = claims
        .values()
        .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    values.filter(|value| value.len() > 4).collect()
}

/// Returns `accepted`, or the reason of the rejection without `NO_KEY` at its end. The rejection is `token-invalid`,
/// shows nothing of the token except its `kid`, and is fit for a log.
fn verdict_of(rejection: Option<&Rejection>, token: &str) -> String {
    let Some(rejection) = rejection else { return ACCEPTED.to_owned() };
    let source = rejection.source().expect("a reason");
    let kind = if source.to_string() == NO_KEYS {
        RejectionKind::VerifierFailed
    } else {
        RejectionKind::TokenInvalid
    };
    assert_eq!(rejection.kind(), kind, "{token}");
    let chain = || successors(Some(rejection as &dyn Error), |&error| error.source());
    let logged = chain().map(ToString::to_string).collect::<String>();
    assert!(!logged.contains(char::is_control) && logged.len() < 1000, "{logged:?}");
    let shown = chain().map(|error| format!("{error} {error:?} {error:#?}")).collect::<String>();
    for part in
        token.split('.').filter(|part| part.len() > 8).chain((token.len() > 8).then_some(token))
    {
        assert!(!shown.contains(part), "{part} in {shown}");
    }
    for value in values(token) {
        assert!(!shown.contains(&value), "{value} in {shown}");
    }
    let reason = source.to_string();
    assert_eq!(
        reason.starts_with("the token is signed with "),
        reason.ends_with(NO_KEY),
        "{reason}"
    );
    reason.strip_suffix(NO_KEY).unwrap_or(&reason).to_owned()
}

/// The verdict through a layer: 200, or 401 with a reason.
async fn verdict<C: Clone + Send + Sync + 'static>(verifier: &JwtVerifier<C>, token: &str) -> String
where
    JwtVerifier<C>: VerifyToken<Claims = C>,
{
    let inner = service_fn(async |request: Request<()>| {
        assert!(request.extensions().get::<Claims<C>>().is_some());
        Ok::<_, Infallible>(Response::new(()))
    });
    let raw = handshake().and("Authorization", format!("Bearer {token}"));
    let layer = TokenCheckLayer::new(TokenPolicy::bearer(verifier.clone()));
    let response = layer.layer(inner).oneshot(raw.request()).await.unwrap();
    let verdict = verdict_of(response.extensions().get(), token);
    let status = match &*verdict {
        ACCEPTED => 200,
        NO_KEYS => 503,
        _ => 401,
    };
    assert_eq!(response.status(), status, "{token}");
    verdict
}

async fn check<C: Clone + Send + Sync + 'static>(
    verifier: &JwtVerifier<C>,
    token: &str,
    expected: &str,
) where
    JwtVerifier<C>: VerifyToken<Claims = C>,
{
    assert_eq!(verdict(verifier, token).await, expected, "{token}");
}

fn parts() -> Parts {
    handshake().request::<()>().into_parts().0
}

/// The token with one byte of the part changed: the first, the middle or the last.
fn changed(token: &str, part: usize) -> [String; 3] {
    let parts = token.split('.').collect::<Vec<_>>();
    let bytes = URL_SAFE_NO_PAD.decode(parts[part]).unwrap();
    [0, bytes.len() / 2, bytes.len() - 1].map(|index| {
        let mut bytes = bytes.clone();
        bytes[index] ^= 1;
        let changed = b64(bytes);
        let mut parts = parts.clone();
        parts[part] = &changed;
        parts.join(".")
    })
}

fn set(keys: impl IntoIterator<Item = Value>) -> String {
    json!({ "keys": keys.into_iter().collect::<Vec<_>>() }).to_string()
}

/// The test key for `algorithm`, without `alg` but with `members`.
fn jwk(algorithm: Algorithm, members: Value) -> Value {
    let mut jwk =
        serde_json::to_value(Jwk::from_encoding_key(&signing_key(algorithm), algorithm).unwrap())
            .unwrap();
    let jwk_members = jwk.as_object_mut().unwrap();
    jwk_members.remove("alg");
    let Value::Object(members) = members else { panic!("{members} is no object") };
    jwk_members.extend(members);
    jwk
}

#[tokio::test]
async fn rfc_examples_verify() {
    let hs256 = (
        HS256,
        json!({
            "kty": "oct",
            "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
        }),
    );
    let rs256 = (
        RS256,
        json!({
            "kty": "RSA",
            "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2\
                  lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTB\
                  EMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kz\
                  k2PAcDTW9gb54h4FRWyuXpoQ",
            "e": "AQAB",
        }),
    );
    let es256 = (
        ES256,
        json!({
            "kty": "EC",
            "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        }),
    );
    let eddsa = (
        EdDSA,
        json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }),
    );
    let rsa_signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdb\
                         F9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383\
                         LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWy\
                         wlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    let cases = [
        // RFC 7515 A.1, RFC 7519 3.1.
        (
            hs256,
            format!(
                "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{RFC_7515_PAYLOAD}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
            ),
            EXPIRED,
        ),
        // RFC 7515 A.2.
        (rs256, format!("eyJhbGciOiJSUzI1NiJ9.{RFC_7515_PAYLOAD}.{rsa_signature}"), EXPIRED),
        // RFC 7515 A.3.
        (
            es256.clone(),
            format!(
                "eyJhbGciOiJFUzI1NiJ9.{RFC_7515_PAYLOAD}.\
                 DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
            ),
            EXPIRED,
        ),
        // RFC 8037 A.4: the payload is a sentence.
        (
            eddsa,
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.\
             hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
                .to_owned(),
            UNREADABLE,
        ),
    ];
    for ((algorithm, jwk), token, expected) in cases {
        let verifier = verifier_with(JwtKey::from_jwks(&set([jwk]), &[algorithm]).unwrap());
        check(&verifier, &token, expected).await;
        for changed in changed(&token, 1).iter().chain(&changed(&token, 2)) {
            check(&verifier, changed, SIGNATURE).await;
        }
    }

    // RFC 7515 A.4.
    let es512 = "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34X\
                 O0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn";
    let p521 = json!({
        "kty": "EC",
        "crv": "P-521",
        "x": "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
        "y": "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2",
    });
    let keys = JwtKey::from_jwks(&set([p521, es256.1]), &[ES256, ES384]).unwrap();
    assert_eq!(keys.len(), 1);
    check(&verifier_with(keys), es512, NO_JWT).await;
    // RFC 7515 A.5, RFC 7519 6.1.
    check(&verifier(), &format!("eyJhbGciOiJub25lIn0.{RFC_7515_PAYLOAD}."), NO_JWT).await;
}

#[tokio::test]
async fn algorithms_verify_only_their_own_signatures() {
    let hmac = |algorithm, length| {
        let secret = [7; 64];
        (
            JwtKey::hmac(algorithm, &secret[..length]),
            EncodingKey::from_secret(&secret[..length]).unwrap(),
        )
    };
    let rsa =
        |algorithm| (JwtKey::public_pem(algorithm, RSA_PUBLIC), signing_key(Algorithm::RS256));
    let cases = [
        (Algorithm::HS256, hmac(HS256, 32)),
        (Algorithm::HS384, hmac(HS384, 48)),
        (Algorithm::HS512, hmac(HS512, 64)),
        (Algorithm::RS256, rsa(RS256)),
        (Algorithm::RS384, rsa(RS384)),
        (Algorithm::RS512, rsa(RS512)),
        (Algorithm::PS256, rsa(PS256)),
        (Algorithm::PS384, rsa(PS384)),
        (Algorithm::PS512, rsa(PS512)),
        (Algorithm::ES256, (JwtKey::public_pem(ES256, P256_PUBLIC), signing_key(Algorithm::ES256))),
        (Algorithm::ES384, (JwtKey::public_pem(ES384, P384_PUBLIC), signing_key(Algorithm::ES384))),
        (
            Algorithm::EdDSA,
            (JwtKey::public_pem(EdDSA, ED25519_PUBLIC), signing_key(Algorithm::EdDSA)),
        ),
    ];
    let algorithms = cases.each_ref().map(|(algorithm, _)| *algorithm);
    let tokens = cases
        .iter()
        .map(|(algorithm, (_, key))| encode(&Header::new(*algorithm), &good(), key).unwrap());
    let tokens = tokens.collect::<Vec<_>>();
    for (index, (algorithm, (key, _))) in cases.into_iter().enumerate() {
        let verifier = verifier_with([key.unwrap()]);
        check(&verifier, &tokens[index], ACCEPTED).await;
        check(&verifier, &changed(&tokens[index], 2)[1], SIGNATURE).await;
        // Algorithms of the same family are rejected, too.
        for (other, other_algorithm) in
            tokens.iter().zip(algorithms).filter(|(_, other)| *other != algorithm)
        {
            check(
                &verifier,
                other,
                &format!("the token is signed with {other_algorithm:?} and names no `kid`"),
            )
            .await;
        }
        // A valid signature of another algorithm, renamed to this one.
        let other = if algorithm == Algorithm::HS256 { &tokens[3] } else { &tokens[0] };
        let (payload, signature) = other.split_once('.').unwrap().1.split_once('.').unwrap();
        let renamed =
            format!("{}.{payload}.{signature}", b64(json!({ "alg": algorithm }).to_string()));
        check(&verifier, &renamed, SIGNATURE).await;
    }
}

#[tokio::test]
async fn algorithm_confusion_is_rejected() {
    let rs256 = verifier_with([JwtKey::public_pem(RS256, RSA_PUBLIC).unwrap()]);
    let es256 = verifier_with([JwtKey::public_pem(ES256, P256_PUBLIC).unwrap()]);
    let ed25519 = set([jwk(Algorithm::EdDSA, json!({}))]);
    let eddsa = verifier_with(JwtKey::from_jwks(&ed25519, &[EdDSA, HS256]).unwrap());

    // A public key used as the secret: as a file, its DER, its JWK, its bytes.
    let ed25519_bytes = jwk(Algorithm::EdDSA, json!({}))["x"].as_str().unwrap().to_owned();
    let der = RSA_PUBLIC.lines().filter(|line| !line.starts_with('-')).collect::<String>();
    for (verifier, public_key) in [
        (&rs256, RSA_PUBLIC.into()),
        (&rs256, RSA_PUBLIC.trim_end().into()),
        (&rs256, STANDARD.decode(der).unwrap()),
        (&es256, P256_PUBLIC.into()),
        (&eddsa, ed25519.into_bytes()),
        (&eddsa, URL_SAFE_NO_PAD.decode(ed25519_bytes).unwrap()),
    ] {
        let forged =
            encode(&Header::default(), &good(), &EncodingKey::from_secret(&public_key).unwrap())
                .unwrap();
        check(verifier, &forged, "the token is signed with HS256 and names no `kid`").await;
    }
    check(&eddsa, &token(Algorithm::HS256), "the token is signed with HS256 and names no `kid`")
        .await;
    check(&eddsa, &token(Algorithm::EdDSA), ACCEPTED).await;

    let payload = b64(good().to_string());
    for alg in [
        "none", "None", "NONE", "nOnE", "", "hs256", "HS256 ", "HS1", "ES512", "ES256K", "A128KW",
        "dir",
    ] {
        let header = b64(json!({ "alg": alg }).to_string());
        for signature in [
            String::new(),
            b64([0; 32]),
            token(Algorithm::HS256).rsplit('.').next().unwrap().to_owned(),
        ] {
            check(&verifier(), &format!("{header}.{payload}.{signature}"), NO_JWT).await;
        }
        check(&rs256, &format!("{header}.{payload}."), NO_JWT).await;
    }
    for (header, expected) in [
        (r#"{"typ":"JWT"}"#, NO_JWT),
        ("{}", NO_JWT),
        (r#"{"Alg":"HS256"}"#, NO_JWT),
        (r#"{"alg":null}"#, NO_JWT),
        (r#"{"alg":["HS256"]}"#, NO_JWT),
        (r#"{"alg":0}"#, NO_JWT),
        (r#"{"alg":"HS256","alg":"none"}"#, NO_JWT),
        (r#"{"alg":"none","alg":"HS256"}"#, NO_JWT),
        // Critical extensions: none is supported.
        (r#"{"alg":"HS256","crit":["exp"],"exp":1}"#, CRIT),
        (r#"{"alg":"HS256","crit":["b64"],"b64":true}"#, CRIT),
        (r#"{"alg":"HS256","crit":[]}"#, CRIT),
        (r#"{"alg":"HS256","crit":"b64"}"#, NO_JWT),
        (r#"{"alg":"HS256","x-ours":{"a":[1]}}"#, ACCEPTED),
        // The payload would not be base64url (RFC 7797).
        (r#"{"alg":"HS256","b64":false}"#, UNREADABLE),
        (r#"{"alg":"HS256","b64":true}"#, ACCEPTED),
    ] {
        check(&verifier(), &hs256(header, good().to_string()), expected).await;
    }

    // A key inside the token that fits its signature.
    let attacker = EncodingKey::from_ec_pem(ATTACKER_P256.as_bytes()).unwrap();
    let attacker_jwk = Jwk::from_encoding_key(&attacker, Algorithm::ES256).unwrap();
    let url = "https://evil.example/keys".to_owned();
    let plain = Header::new(Algorithm::ES256);
    for header in [
        plain.clone(),
        Header { jwk: Some(attacker_jwk.clone()), ..plain.clone() },
        Header { jwk: Some(attacker_jwk), kid: Some("attacker".to_owned()), ..plain.clone() },
        Header { jku: Some(url.clone()), ..plain.clone() },
        Header { x5u: Some(url), ..plain.clone() },
        Header { x5c: Some(vec![STANDARD.encode("certificate")]), ..plain },
    ] {
        let forged = encode(&header, &good(), &attacker).unwrap();
        check(&es256, &forged, SIGNATURE).await;
        // The header is harmless with a valid signature.
        let signed = encode(&header, &good(), &signing_key(Algorithm::ES256)).unwrap();
        check(&es256, &signed, ACCEPTED).await;
    }

    // An ECDSA signature of zeros fits everything in a broken implementation.
    let es256_header = b64(r#"{"alg":"ES256"}"#);
    for signature in [vec![0; 64], vec![0; 63], vec![0xff; 64], vec![]] {
        let forged = format!("{es256_header}.{payload}.{}", b64(signature));
        check(&es256, &forged, SIGNATURE).await;
    }
}

#[tokio::test]
async fn claims_are_checked() {
    type Configure = fn(JwtVerifier<Value>) -> JwtVerifier<Value>;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let with = |members: Value| {
        let Value::Object(mut claims) = good() else { unreachable!() };
        claims.extend(members.as_object().unwrap().clone());
        Value::Object(claims).to_string()
    };
    let exp = |exp: Value| json!({ "exp": exp }).to_string();
    let nbf = |nbf: Value| with(json!({ "nbf": nbf }));
    let aud = |aud: Value| with(json!({ "aud": aud }));
    let iss = |iss: Value| with(json!({ "iss": iss }));

    let plain: Configure = |verifier| verifier;
    let exact: Configure = |verifier| verifier.leeway(Duration::ZERO).unwrap();
    let generous: Configure = |verifier| verifier.leeway(Duration::from_secs(3600)).unwrap();
    let chat: Configure = |verifier| verifier.audience("chat");
    let either: Configure = |verifier| verifier.audience("chat").audience("mail");
    let ours: Configure = |verifier| verifier.issuer("https://id.example.com");
    let both: Configure = |verifier| verifier.issuer("https://id.example.com").issuer("joe");
    let required: Configure =
        |verifier| verifier.required_claims(["sub", "jti"]).required_claims(["scope"]);

    let cases: Vec<(Configure, String, &str)> = vec![
        (plain, exp(json!(FUTURE)), ACCEPTED),
        (plain, exp(json!(now - 30)), ACCEPTED),
        (plain, exp(json!(now - 90)), EXPIRED),
        (exact, exp(json!(now + 100)), ACCEPTED),
        (exact, exp(json!(now - 1)), EXPIRED),
        (exact, exp(json!(now)), EXPIRED),
        (generous, exp(json!(now - 3000)), ACCEPTED),
        (generous, exp(json!(now - 3600)), EXPIRED),
        (plain, exp(json!(1)), EXPIRED),
        (plain, exp(json!(0)), EXPIRED),
        (plain, exp(json!(0.4)), EXPIRED),
        (plain, exp(json!(-0.0)), EXPIRED),
        (generous, exp(json!(0)), EXPIRED),
        (plain, exp(json!(1.5)), EXPIRED),
        (plain, exp(json!(4_102_444_800.5)), ACCEPTED),
        (plain, exp(json!(u64::MAX)), ACCEPTED),
        (plain, "{}".into(), "the claim `exp` is missing or invalid"),
        (plain, r#"{"EXP":4102444800}"#.into(), "the claim `exp` is missing or invalid"),
        (plain, exp(json!("4102444800")), "the claim `exp` is missing or invalid"),
        (plain, exp(json!(-1)), "the claim `exp` is missing or invalid"),
        (plain, exp(json!(-1.5)), "the claim `exp` is missing or invalid"),
        (plain, exp(json!(1e300)), "the claim `exp` is missing or invalid"),
        (plain, r#"{"exp":18446744073709551616}"#.into(), "the claim `exp` is missing or invalid"),
        (plain, r#"{"exp":1e999}"#.into(), UNREADABLE),
        (plain, r#"{"exp":[1]}"#.into(), UNREADABLE),
        (plain, r#"{"exp":{"a":1}}"#.into(), UNREADABLE),
        (plain, r#"{"exp":4102444800,"nbf":[1]}"#.into(), UNREADABLE),
        (plain, r#"{"exp":4102444800,"sub":{}}"#.into(), UNREADABLE),
        (plain, r#"{"exp":4102444800,"sub":"a","sub":"b"}"#.into(), UNREADABLE),
        (plain, r#"{"exp":NaN}"#.into(), UNREADABLE),
        (plain, exp(json!(null)), "the claim `exp` is missing or invalid"),
        (plain, exp(json!(true)), "the claim `exp` is missing or invalid"),
        (plain, r#"{"exp":1,"exp":4102444800}"#.into(), UNREADABLE),
        (plain, r#"{"exp":4102444800,"exp":1}"#.into(), UNREADABLE),
        (plain, r#"{"exp":4102444800,"e\u0078p":1}"#.into(), UNREADABLE),
        (plain, nbf(json!(now - 1000)), ACCEPTED),
        (plain, nbf(json!(now + 30)), ACCEPTED),
        (plain, nbf(json!(now + 300)), EARLY),
        (exact, nbf(json!(now)), ACCEPTED),
        (exact, nbf(json!(now + 100)), EARLY),
        (generous, nbf(json!(now + 3000)), ACCEPTED),
        (generous, nbf(json!(now + 4000)), EARLY),
        (plain, nbf(json!(u64::MAX)), EARLY),
        (plain, nbf(json!("0")), "the claim `nbf` is missing or invalid"),
        (plain, nbf(json!(1e300)), "the claim `nbf` is missing or invalid"),
        (plain, nbf(json!(-1)), "the claim `nbf` is missing or invalid"),
        (plain, nbf(json!(null)), "the claim `nbf` is missing or invalid"),
        (chat, aud(json!("chat")), ACCEPTED),
        (chat, aud(json!(["mail", "chat"])), ACCEPTED),
        (chat, aud(json!("mail")), AUDIENCE),
        (chat, aud(json!("Chat")), AUDIENCE),
        (chat, aud(json!("chat ")), AUDIENCE),
        (chat, aud(json!("")), AUDIENCE),
        (chat, aud(json!(["mail"])), AUDIENCE),
        (chat, aud(json!([])), AUDIENCE),
        (chat, aud(json!(["chat", 1])), "the claim `aud` is missing or invalid"),
        (chat, aud(json!({ "chat": true })), "the claim `aud` is missing or invalid"),
        (chat, aud(json!(null)), "the claim `aud` is missing or invalid"),
        (chat, with(json!({})), "the claim `aud` is missing or invalid"),
        (either, aud(json!("mail")), ACCEPTED),
        (either, aud(json!("chat")), ACCEPTED),
        (either, aud(json!("news")), AUDIENCE),
        (plain, aud(json!("chat")), NO_AUDIENCE),
        (plain, aud(json!(["chat"])), NO_AUDIENCE),
        (plain, aud(json!("")), NO_AUDIENCE),
        (plain, aud(json!([])), NO_AUDIENCE),
        (plain, aud(json!(["chat", 1])), NO_AUDIENCE),
        (plain, aud(json!(1)), NO_AUDIENCE),
        (plain, aud(json!({ "chat": true })), NO_AUDIENCE),
        (plain, aud(json!(false)), NO_AUDIENCE),
        (plain, aud(json!(null)), NO_AUDIENCE),
        (ours, with(json!({ "iss": "https://id.example.com", "aud": ["chat", 1] })), NO_AUDIENCE),
        (ours, iss(json!("https://id.example.com")), ACCEPTED),
        (ours, iss(json!("https://id.example.com/")), ISSUER),
        (ours, iss(json!("https://ID.example.com")), ISSUER),
        (ours, iss(json!("https://evil.example")), ISSUER),
        (ours, iss(json!(["https://evil.example"])), ISSUER),
        (ours, iss(json!([])), ISSUER),
        (ours, iss(json!(["https://id.example.com"])), ISSUERS),
        (ours, iss(json!(["https://id.example.com", "https://evil.example"])), ISSUERS),
        (both, iss(json!(["https://evil.example", "joe"])), ISSUERS),
        (ours, iss(json!(1)), "the claim `iss` is missing or invalid"),
        (ours, iss(json!(null)), "the claim `iss` is missing or invalid"),
        (ours, with(json!({})), "the claim `iss` is missing or invalid"),
        (both, iss(json!("joe")), ACCEPTED),
        (both, iss(json!("https://id.example.com")), ACCEPTED),
        (both, iss(json!("jim")), ISSUER),
        (plain, iss(json!("anybody")), ACCEPTED),
        (plain, iss(json!(["anybody"])), ACCEPTED),
        (required, with(json!({ "jti": 0, "scope": "" })), ACCEPTED),
        (required, with(json!({ "jti": false, "scope": [] })), ACCEPTED),
        (required, with(json!({ "jti": "1" })), "the claim `scope` is missing or null"),
        (required, with(json!({ "scope": "x" })), "the claim `jti` is missing or null"),
        (
            required,
            with(json!({ "jti": "1", "scope": null })),
            "the claim `scope` is missing or null",
        ),
    ];
    for (configure, payload, expected) in cases {
        let verdict = verdict(&configure(verifier()), &hs256_claims(&payload)).await;
        assert_eq!(verdict, expected, "{payload}");
    }
}

#[tokio::test]
async fn token_type_is_checked() {
    let typed =
        |typ: &str| hs256(&json!({ "alg": "HS256", "typ": typ }).to_string(), good().to_string());
    for expected in ["at+jwt", "AT+JWT", "application/at+jwt"] {
        let verifier = verifier().token_type(expected);
        let rejection = format!("the `typ` of the token is not `{expected}`");
        for (token, verdict) in [
            (typed("at+jwt"), ACCEPTED),
            (typed("AT+jwt"), ACCEPTED),
            (typed("application/at+jwt"), ACCEPTED),
            (typed("Application/AT+JWT"), ACCEPTED),
            (typed("JWT"), &rejection),
            (typed("at+jwt "), &rejection),
            (typed("text/at+jwt"), &rejection),
            (typed("application/application/at+jwt"), &rejection),
            (typed("application/"), &rejection),
            (typed("at+jwt\n\u{1b}[31m"), &rejection),
            (typed(&"at+jwt".repeat(1000)), &rejection),
            (typed("logout+jwt"), &rejection),
            (typed(""), &rejection),
            (hs256_claims(good().to_string()), &rejection),
            (hs256(r#"{"alg":"HS256","typ":null}"#, good().to_string()), &rejection),
            (hs256(r#"{"alg":"HS256","typ":["at+jwt"]}"#, good().to_string()), NO_JWT),
        ] {
            check(&verifier, &token, verdict).await;
        }
    }
    check(&verifier(), &typed("whatever"), ACCEPTED).await;
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
struct User {
    sub: String,
    level: u8,
    scope: Option<String>,
}

#[derive(Clone, Deserialize)]
#[expect(dead_code, reason = "it is read, and that is all")]
struct Numbered {
    sub: u64,
    role: Role,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    Reader,
}

#[tokio::test]
async fn claims_must_deserialize_into_the_type_of_the_caller() {
    let verifier = JwtVerifier::<User>::new(JwtKeys::new([secret_key()]));
    for (claims, expected) in [
        (json!({ "exp": FUTURE, "sub": "alice", "level": 255, "other": {} }), ACCEPTED),
        (
            json!({ "exp": FUTURE, "sub": "alice" }),
            "the claims do not match the type of the verifier: missing field `level`",
        ),
        (
            json!({ "exp": FUTURE, "level": 1 }),
            "the claims do not match the type of the verifier: missing field `sub`",
        ),
        (json!({ "exp": FUTURE, "sub": "alice", "level": 256 }), MISMATCH),
        (json!({ "exp": FUTURE, "sub": "alice", "level": "1" }), MISMATCH),
        (json!({ "exp": FUTURE, "sub": null, "level": 1 }), MISMATCH),
        (json!({ "exp": 1, "sub": null }), EXPIRED),
    ] {
        check(&verifier, &hs256_claims(claims.to_string()), expected).await;
    }

    let verifier = JwtVerifier::<Numbered>::new(JwtKeys::new([secret_key()]));
    for (claims, expected) in [
        (json!({ "exp": FUTURE, "sub": 7, "role": "reader" }), ACCEPTED),
        (json!({ "exp": FUTURE, "sub": "alice@example.com", "role": "reader" }), MISMATCH),
        (json!({ "exp": FUTURE, "sub": "missing field `alice`", "role": "reader" }), MISMATCH),
        (json!({ "exp": FUTURE, "sub": -123_456, "role": "reader" }), MISMATCH),
        (json!({ "exp": FUTURE, "sub": 7, "role": { "mail": "alice@example.com" } }), MISMATCH),
        (json!({ "exp": FUTURE, "sub": 7, "role": "alice's keeper" }), MISMATCH),
        (
            json!({ "exp": FUTURE, "role": "reader", "mail": "alice@example.com" }),
            "the claims do not match the type of the verifier: missing field `sub`",
        ),
        (
            json!({ "exp": FUTURE, "sub": 7 }),
            "the claims do not match the type of the verifier: missing field `role`",
        ),
    ] {
        check(&verifier, &hs256_claims(claims.to_string()), expected).await;
    }

    let verifier = JwtVerifier::<IgnoredAny>::new(JwtKeys::new([secret_key()]));
    for (claims, expected) in [
        (json!({ "exp": FUTURE, "sub": "alice", "other": {} }), ACCEPTED),
        (json!({ "exp": FUTURE }), ACCEPTED),
        (json!({ "exp": 1 }), EXPIRED),
        (json!({ "sub": "alice" }), "the claim `exp` is missing or invalid"),
    ] {
        check(&verifier, &hs256_claims(claims.to_string()), expected).await;
    }
}

#[tokio::test]
async fn missing_scope_is_token_forbidden() {
    let verifier = JwtVerifier::<User>::new(JwtKeys::new([secret_key()])).require(|user| {
        user.scope.as_deref().is_some_and(|scope| scope.split(' ').any(|scope| scope == "chat"))
    });
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let layer =
        GuardLayer::new(AllowOrigin::same_origin()).token(TokenPolicy::bearer(verifier)).unwrap();
    for (members, status, code) in [
        (json!({ "exp": FUTURE, "scope": "read chat" }), 200, None),
        (json!({ "exp": FUTURE, "scope": "read chats" }), 403, Some("token-forbidden")),
        (json!({ "exp": FUTURE, "scope": "" }), 403, Some("token-forbidden")),
        (json!({ "exp": FUTURE }), 403, Some("token-forbidden")),
        // These tokens are invalid anyway.
        (json!({ "exp": 1, "scope": "read" }), 401, Some("token-invalid")),
        (json!({ "exp": 1, "scope": "chat" }), 401, Some("token-invalid")),
    ] {
        let mut claims = json!({ "sub": "alice", "level": 1 });
        claims.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        let raw = handshake()
            .and("Authorization", format!("Bearer {}", hs256_claims(claims.to_string())));
        for request in raw.over_both() {
            let response = layer.layer(inner).oneshot(request).await.unwrap();
            let rejection = response.extensions().get::<Rejection>();
            assert_eq!(
                (response.status().as_u16(), rejection.map(|it| it.kind().code())),
                (status, code),
                "{claims}"
            );
        }
    }
}

#[tokio::test]
async fn malformed_token_is_rejected() {
    let verifier = verifier();
    let good_token = hs256_claims(good().to_string());
    let [header, payload, signature]: [&str; 3] =
        good_token.split('.').collect::<Vec<_>>().try_into().expect("three parts");
    let signed = |header: &str, payload: &str| {
        sign_as(
            Algorithm::HS256,
            &EncodingKey::from_secret(SECRET).unwrap(),
            &format!("{header}.{payload}"),
        )
    };
    let padded = |text: &str| URL_SAFE.encode(text);
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let deep_header = |depth| format!(r#"{{"alg":"HS256","x":{}}}"#, nested(depth));
    let deep_payload = |depth| format!(r#"{{"exp":4102444800,"x":{}}}"#, nested(depth));
    // Texts with padded base64, and one that the two alphabets encode differently.
    let (short_header, odd_payload) =
        (r#"{"alg":"HS256" }"#, r#"{"exp":4102444800,"x":"???>>>"} "#);
    assert!(
        padded(short_header).contains('=')
            && padded(odd_payload).contains('=')
            && b64(odd_payload).contains('_')
    );

    let cases: Vec<(String, &str)> = vec![
        (good_token.clone(), ACCEPTED),
        (String::new(), NO_JWT),
        (header.to_owned(), NO_JWT),
        ("garbage".to_owned(), NO_JWT),
        (format!("{header}.{payload}"), NO_JWT),
        (format!("{header}.{payload}."), SIGNATURE),
        (format!("{payload}.{signature}"), NO_JWT),
        (".".to_owned(), NO_JWT),
        ("..".to_owned(), NO_JWT),
        (format!(".{payload}.{signature}"), NO_JWT),
        (format!("{header}..{signature}"), SIGNATURE),
        (signed(header, ""), UNREADABLE),
        (format!("{good_token}."), NO_JWT),
        (format!("{good_token}.{signature}"), NO_JWT),
        (format!("{good_token}.{payload}.{signature}"), NO_JWT),
        (format!(".{good_token}"), NO_JWT),
        (format!("{good_token}="), UNREADABLE),
        (format!("{good_token} "), UNREADABLE),
        (format!("{good_token}\n"), UNREADABLE),
        (format!("{good_token}\0"), UNREADABLE),
        (format!("{good_token}AAAA"), SIGNATURE),
        (format!(" {good_token}"), NO_JWT),
        (format!("{header}.{payload}.{}", &signature[..signature.len() - 4]), UNREADABLE),
        (signed(&b64(short_header), &b64(odd_payload)), ACCEPTED),
        (signed(&padded(short_header), &b64(odd_payload)), NO_JWT),
        (signed(&b64(short_header), &padded(odd_payload)), UNREADABLE),
        (signed(&b64(short_header), &STANDARD.encode(odd_payload)), UNREADABLE),
        (signed(&b64("HS256"), payload), NO_JWT),
        (hs256(&json!({ "alg": "HS256\n\u{1b}[31m" }).to_string(), good().to_string()), NO_JWT),
        (hs256(&json!({ "alg": "H".repeat(6000) }).to_string(), good().to_string()), NO_JWT),
        (hs256(&json!({ "alg": "\n\u{1b}".repeat(6000) }).to_string(), good().to_string()), NO_JWT),
        (signed(&b64(r#"["HS256"]"#), payload), NO_JWT),
        (signed(&b64(b"{\"alg\":\"HS256\",\"x\":\"\xff\"}"), payload), NO_JWT),
        (signed(&b64(r#"{"alg":"HS256"}{}"#), payload), NO_JWT),
        (signed(header, &b64("[]")), UNREADABLE),
        (signed(header, &b64("null")), UNREADABLE),
        (signed(header, &b64(r#""exp""#)), UNREADABLE),
        (signed(header, &b64(r#"{"exp":4102444800}x"#)), UNREADABLE),
        (signed(header, &b64(r#"{"exp":4102444800"#)), UNREADABLE),
        (signed(header, &b64(b"{\"exp\":4102444800,\"x\":\"\xff\"}")), UNREADABLE),
        (signed(header, &b64(r#"{"exp":4102444800,"x":"\ud800"}"#)), UNREADABLE),
        (hs256(&deep_header(100), deep_payload(100)), ACCEPTED),
        (hs256(&deep_header(100_000), good().to_string()), NO_JWT),
        (hs256_claims(deep_payload(100_000)), UNREADABLE),
        (hs256(&"[".repeat(100_000), good().to_string()), NO_JWT),
        (hs256_claims(r#"{"a":"#.repeat(100_000)), UNREADABLE),
    ];
    for (token, expected) in cases {
        let verdict = verifier.verify(Token::new(&*token), &parts()).await;
        let verdict = verdict_of(verdict.as_ref().err(), &token);
        let shown = &token[..token.len().min(200)];
        assert_eq!(verdict, expected, "{shown:?}");
    }

    // The last character of a signature has unused bits: only one spelling is accepted.
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let respelled =
        alphabet.chars().map(|last| format!("{}{last}", &good_token[..good_token.len() - 1]));
    let mut accepted = 0;
    for token in respelled {
        accepted += usize::from(verifier.verify(Token::new(token), &parts()).await.is_ok());
    }
    assert_eq!(accepted, 1);
}

/// Counts the tokens that reach the verifier.
struct Counting(JwtVerifier<Value>, Arc<AtomicUsize>);

impl VerifyToken for Counting {
    type Claims = Value;

    async fn verify(&self, token: Token, request: &Parts) -> Result<Verified<Value>, Rejection> {
        self.1.fetch_add(1, SeqCst);
        self.0.verify(token, request).await
    }
}

#[tokio::test]
async fn oversized_token_does_not_reach_the_verifier() {
    let calls = Arc::new(AtomicUsize::new(0));
    let verifier = Arc::new(Counting(verifier(), Arc::clone(&calls)));
    let layer = TokenCheckLayer::new(TokenPolicy::bearer(verifier));
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let of_length = |length: usize| {
        let claims = json!({ "exp": FUTURE, "padding": "x".repeat(length * 3 / 4) });
        hs256_claims(claims.to_string()).into_bytes()
    };
    let (large, oversize) = (of_length(7 * 1024), of_length(9 * 1024));
    assert!(large.len() < 8 * 1024 && oversize.len() > 9 * 1024);
    for (token, status, reached) in [
        (&large[..], 200, 1),
        (&oversize, 401, 0),
        (b"\xff\xfe", 401, 0),
        (&[&token(Algorithm::HS256).into_bytes()[..], b"\xff"].concat(), 401, 0),
    ] {
        let raw = handshake().and("Authorization", [b"Bearer ", token].concat());
        let response = layer.layer(inner).oneshot(raw.request()).await.unwrap();
        assert_eq!(response.status(), status);
        let kind = response.extensions().get::<Rejection>().map(Rejection::kind);
        assert_eq!(kind, (status == 401).then_some(RejectionKind::TokenInvalid));
        assert_eq!(calls.swap(0, SeqCst), reached);
    }
}

#[tokio::test]
async fn kid_selects_the_key() {
    let secrets = [[1; 32], [2; 32], [3; 32]];
    let key = |index: usize| JwtKey::hmac(HS256, &secrets[index]).unwrap();
    let token = |index: usize, kid: Option<&str>| {
        let header = Header { kid: kid.map(str::to_owned), ..Header::default() };
        encode(&header, &good(), &EncodingKey::from_secret(&secrets[index]).unwrap()).unwrap()
    };
    let (a, b) = (|| key(0).key_id("a"), || key(1).key_id("b"));
    let without = "the token is signed with HS256 and names no `kid`";
    let long = "k".repeat(6000);
    let [cut, lines, private] = [&long[..64], &r"\n".repeat(64), &r"\u{10ffff}".repeat(64)]
        .map(|shown| format!("the token is signed with HS256 and names the `kid` \"{shown}\""));

    let cases: Vec<(Vec<JwtKey>, String, &str)> = vec![
        (vec![a()], token(0, Some("a")), ACCEPTED),
        (vec![a()], token(0, None), without),
        (
            vec![a()],
            token(0, Some("A")),
            "the token is signed with HS256 and names the `kid` \"A\"",
        ),
        (vec![a()], token(0, Some("")), "the token is signed with HS256 and names the `kid` \"\""),
        (
            vec![a()],
            token(0, Some("a\n\u{1b}[31m\u{202e}\"")),
            r#"the token is signed with HS256 and names the `kid` "a\n\u{1b}[31m\u{202e}\"""#,
        ),
        (vec![a()], token(0, Some(&"\n".repeat(2000))), &lines),
        (vec![a()], token(0, Some(&"\u{10ffff}".repeat(1000))), &private),
        (vec![a()], token(0, Some(&long)), &cut),
        (vec![a()], token(1, Some("a")), SIGNATURE),
        (vec![a(), b()], token(1, Some("b")), ACCEPTED),
        (vec![a(), b()], token(0, Some("b")), SIGNATURE),
        (
            vec![a(), b()],
            token(0, Some("c")),
            "the token is signed with HS256 and names the `kid` \"c\"",
        ),
        (vec![a(), key(1).key_id("a")], token(1, Some("a")), ACCEPTED),
        (vec![a(), key(1).key_id("a")], token(2, Some("a")), SIGNATURE),
        (vec![key(0)], token(0, None), ACCEPTED),
        (vec![key(0)], token(0, Some("whatever")), ACCEPTED),
        (vec![key(0), key(1)], token(1, None), ACCEPTED),
        (vec![key(0), key(1)], token(2, None), SIGNATURE),
        (vec![a(), key(2)], token(2, Some("a")), ACCEPTED),
        (vec![a(), key(2)], token(0, Some("x")), SIGNATURE),
        (vec![], token(0, None), NO_KEYS),
        (vec![], token(0, Some("a")), NO_KEYS),
        (vec![a()], hs256(r#"{"alg":"HS256","kid":1}"#, good().to_string()), NO_JWT),
        (vec![a()], hs256(r#"{"alg":"HS256","kid":["a"]}"#, good().to_string()), NO_JWT),
    ];
    for (keys, token, expected) in cases {
        check(&verifier_with(keys), &token, expected).await;
    }
}

#[tokio::test]
async fn jwks_is_parsed() {
    const NONE_LEFT: &str = "the set has no key that verifies signatures of these algorithms";
    const NO_SET: &str = "the text is not a JSON Web Key set: an object with a list `keys`";

    let rsa = |members| jwk(Algorithm::RS256, members);
    let p256 = |members| jwk(Algorithm::ES256, members);
    let p384 = |members| jwk(Algorithm::ES384, members);
    let ed25519 = |members| jwk(Algorithm::EdDSA, members);
    let oct = |members| jwk(Algorithm::HS256, members);
    let none = json!({});
    let all = [HS256, RS256, PS256, ES256, ES384, EdDSA];
    let public = &all[1..];
    let rs256 = token(Algorithm::RS256);
    let es256 = token(Algorithm::ES256);
    let es384 = token(Algorithm::ES384);
    let eddsa = token(Algorithm::EdDSA);
    let hs256 = token(Algorithm::HS256);
    let hs512 = token(Algorithm::HS512);
    let ps256 = token(Algorithm::PS256);

    let cases: Vec<(String, &[JwtAlgorithm], &str, &str)> = vec![
        (set([rsa(none.clone())]), &[RS256], &rs256, ACCEPTED),
        (set([rsa(none.clone())]), public, &ps256, ACCEPTED),
        (
            set([rsa(none.clone())]),
            &[RS256],
            &ps256,
            "the token is signed with PS256 and names no `kid`",
        ),
        (set([rsa(json!({ "alg": "RS256" }))]), public, &rs256, ACCEPTED),
        (
            set([rsa(json!({ "alg": "RS256" }))]),
            public,
            &ps256,
            "the token is signed with PS256 and names no `kid`",
        ),
        (set([rsa(json!({ "alg": "RS256" }))]), &[PS256], &ps256, NONE_LEFT),
        (set([rsa(json!({ "alg": "RSA-OAEP" }))]), public, &rs256, NONE_LEFT),
        (set([rsa(json!({ "alg": "XX256" }))]), public, &rs256, NONE_LEFT),
        (set([rsa(json!({ "alg": "HS256" }))]), &all, &rs256, NONE_LEFT),
        (set([rsa(json!({ "n": b64([0xff; 128]) }))]), public, &rs256, NONE_LEFT),
        // 2048 bits only by its length.
        (
            set([rsa(json!({ "n": b64([[0; 128], [0xff; 128]].concat()) }))]),
            public,
            &rs256,
            NONE_LEFT,
        ),
        (set([rsa(json!({ "n": "" }))]), public, &rs256, NONE_LEFT),
        (set([rsa(json!({ "n": "?" }))]), public, &rs256, NONE_LEFT),
        (
            set([rsa(json!({ "n": b64([[0xff; 255].as_slice(), &[0xfe]].concat()) }))]),
            public,
            &rs256,
            NONE_LEFT,
        ),
        (set([rsa(json!({ "n": b64([0xff; 512]) }))]), public, &rs256, SIGNATURE),
        (set([rsa(json!({ "e": "AAEAAQ" }))]), public, &rs256, ACCEPTED),
        (set([p256(none.clone())]), public, &es256, ACCEPTED),
        (set([p256(none.clone())]), &[ES384], &es384, NONE_LEFT),
        (set([p256(json!({ "alg": "ES384" }))]), public, &es256, NONE_LEFT),
        (set([p256(json!({ "x": b64([1; 32]) }))]), public, &es256, NONE_LEFT),
        (set([p256(json!({ "crv": "secp256k1" }))]), public, &es256, NONE_LEFT),
        (set([p256(json!({ "crv": "P-384" }))]), public, &es256, NONE_LEFT),
        (set([p256(json!({ "crv": "Ed25519" }))]), public, &es256, NONE_LEFT),
        (set([ed25519(json!({ "x": b64([0; 32]) }))]), public, &eddsa, NONE_LEFT),
        (
            set([ed25519(json!({ "x": b64([&[1][..], &[0; 31]].concat()) }))]),
            public,
            &eddsa,
            NONE_LEFT,
        ),
        (set([p384(none.clone())]), public, &es384, ACCEPTED),
        (set([p384(none.clone())]), &[ES256], &es256, NONE_LEFT),
        (set([p256(none.clone()), p384(none.clone())]), public, &es384, ACCEPTED),
        (set([ed25519(none.clone())]), public, &eddsa, ACCEPTED),
        (set([ed25519(none.clone())]), &[RS256], &rs256, NONE_LEFT),
        (set([ed25519(json!({ "crv": "X25519" }))]), public, &eddsa, NONE_LEFT),
        (set([ed25519(json!({ "crv": "Ed448" }))]), public, &eddsa, NONE_LEFT),
        // A secret is used only if its algorithm is requested.
        (set([oct(none.clone())]), &[HS256], &hs256, ACCEPTED),
        (set([oct(none.clone())]), public, &hs256, NONE_LEFT),
        // Secrets shorter than the hash.
        (set([oct(json!({ "k": b64([7; 63]) }))]), &[HS512], &hs512, NONE_LEFT),
        (set([oct(json!({ "k": b64([7; 64]) }))]), &[HS512], &hs512, SIGNATURE),
        (set([oct(json!({ "k": b64([7; 47]) }))]), &[HS384], &hs512, NONE_LEFT),
        (
            set([oct(json!({ "k": b64([7; 63]), "alg": "HS512" }))]),
            &[HS256, HS512],
            &hs256,
            NONE_LEFT,
        ),
        (set([oct(none.clone())]), &[HS256, HS512], &hs256, ACCEPTED),
        (
            set([oct(none.clone())]),
            &[HS256, HS512],
            &hs512,
            "the token is signed with HS512 and names no `kid`",
        ),
        (
            set([oct(none.clone()), rsa(none.clone())]),
            public,
            &hs256,
            "the token is signed with HS256 and names no `kid`",
        ),
        (
            set([rsa(none.clone())]),
            &all,
            &hs256,
            "the token is signed with HS256 and names no `kid`",
        ),
        // The purpose of the key.
        (set([ed25519(json!({ "use": "sig" }))]), public, &eddsa, ACCEPTED),
        (set([ed25519(json!({ "use": "enc" }))]), public, &eddsa, NONE_LEFT),
        (set([ed25519(json!({ "use": "other" }))]), public, &eddsa, NONE_LEFT),
        (set([ed25519(json!({ "key_ops": ["verify"] }))]), public, &eddsa, ACCEPTED),
        (set([ed25519(json!({ "key_ops": ["sign", "verify"] }))]), public, &eddsa, ACCEPTED),
        (set([ed25519(json!({ "key_ops": ["encrypt"] }))]), public, &eddsa, NONE_LEFT),
        (set([ed25519(json!({ "key_ops": [] }))]), public, &eddsa, NONE_LEFT),
        (
            set([ed25519(json!({ "use": "sig", "key_ops": ["encrypt"] }))]),
            public,
            &eddsa,
            NONE_LEFT,
        ),
        (
            set([rsa(json!({ "use": "enc" })), ed25519(none.clone())]),
            public,
            &rs256,
            "the token is signed with RS256 and names no `kid`",
        ),
        // Unknown keys do not affect the others.
        (
            set([json!({ "kty": "AKP", "alg": "ML-DSA-44", "pub": "" }), ed25519(none.clone())]),
            public,
            &eddsa,
            ACCEPTED,
        ),
        (set([json!({ "kty": "AKP" })]), public, &eddsa, NONE_LEFT),
        (set([json!({}), ed25519(none.clone())]), public, &eddsa, ACCEPTED),
        (set([ed25519(json!({ "d": "x", "ours": [1] }))]), public, &eddsa, ACCEPTED),
        (
            set([ed25519(json!({ "kid": "1" }))]),
            public,
            &eddsa,
            "the token is signed with EdDSA and names no `kid`",
        ),
        (set([ed25519(none.clone())]), &[], &eddsa, NONE_LEFT),
        (set([]), public, &eddsa, NONE_LEFT),
        ("{}".into(), public, &eddsa, NO_SET),
        ("[]x".into(), public, &eddsa, NO_SET),
        (String::new(), public, &eddsa, NO_SET),
        (r#"{"keys":{}}"#.into(), public, &eddsa, NO_SET),
        ("<html>".into(), public, &eddsa, NO_SET),
    ];
    for (set, algorithms, token, expected) in cases {
        let verdict = match JwtKey::from_jwks(&set, algorithms) {
            Ok(keys) => verdict(&verifier_with(keys), token).await,
            Err(error) => error.to_string(),
        };
        assert_eq!(verdict, expected, "{set} for {algorithms:?}");
    }

    // Unusable keys are skipped and do not affect the others.
    let untyped = |mut jwk: Value| {
        jwk.as_object_mut().unwrap().remove("kty").unwrap();
        jwk
    };
    let lengths = |lengths: &'static [usize]| lengths.iter().map(|&length| b64(vec![7; length]));
    let odd = vec![
        json!(null),
        json!("x"),
        json!(5),
        json!([]),
        json!({}),
        json!({ "kty": "RSA", "kid": 5 }),
        json!({ "kty": 5 }),
        rsa(json!({ "alg": 256 })),
        rsa(json!({ "alg": ["RS256"] })),
        rsa(json!({ "use": ["sig"] })),
        rsa(json!({ "key_ops": "verify" })),
        rsa(json!({ "kid": 5 })),
        rsa(json!({ "kty": "EC" })),
        rsa(json!({ "n": 5 })),
        untyped(rsa(none.clone())),
        untyped(p256(none.clone())),
        untyped(ed25519(none.clone())),
        untyped(oct(none.clone())),
        rsa(json!({ "n": b64([0xff; 1024]) })),
        rsa(json!({ "n": b64([&[1][..], &[0xff; 512]].concat()) })),
        rsa(json!({ "e": "" })),
        rsa(json!({ "e": b64([0]) })),
        rsa(json!({ "e": "AQ" })),
        rsa(json!({ "e": b64([2]) })),
        rsa(json!({ "e": b64([1, 0, 0]) })),
        rsa(json!({ "e": b64([1, 0, 0, 0, 1]) })),
        rsa(json!({ "e": b64([0xff; 256]) })),
        ed25519(json!({ "crv": "P-256" })),
        ed25519(json!({ "crv": "X25519" })),
        ed25519(json!({ "crv": null })),
        ed25519(json!({ "x": b64([NO_POINT; 32]) })),
    ];
    let odd = odd.into_iter();
    let odd = odd.chain(lengths(&[0, 1, 31, 33, 64]).map(|x| ed25519(json!({ "x": x }))));
    let odd = odd.chain(lengths(&[0, 1, 31]).map(|k| oct(json!({ "k": k }))));
    for odd in odd {
        let error = JwtKey::from_jwks(&set([odd.clone()]), &all).unwrap_err();
        assert_eq!(error.to_string(), NONE_LEFT, "{odd}");
        let keys = JwtKey::from_jwks(&set([odd.clone(), ed25519(none.clone()), odd.clone()]), &all)
            .unwrap();
        assert_eq!(keys.len(), 1, "{odd}");
        check(&verifier_with(keys), &eddsa, ACCEPTED).await;
    }

    let kid = |kid: &str| Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::EdDSA) };
    let keys = JwtKey::from_jwks(
        &set([ed25519(json!({ "kid": "1" })), rsa(json!({ "kid": "2" }))]),
        public,
    )
    .unwrap();
    let verifier = verifier_with(keys);
    for (header, expected) in [
        (kid("1"), ACCEPTED),
        (kid("2"), "the token is signed with EdDSA and names the `kid` \"2\""),
    ] {
        check(
            &verifier,
            &encode(&header, &good(), &signing_key(Algorithm::EdDSA)).unwrap(),
            expected,
        )
        .await;
    }
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    let head = match content.len() {
        0..0x80 => vec![tag, low],
        0x80..0x100 => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [&head, content].concat()
}

fn pem_of(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

#[test]
fn invalid_key_is_a_config_error() {
    const SHORT: &str = "the secret is shorter than the hash; use 32 random bytes for HS256, 48 for HS384, \
                         64 for HS512";
    const NO_PEM: &str = "the text is not a public key in PEM for this algorithm";
    const WRONG: &str = "the key is not for this algorithm";
    const RSA_BITS: &str =
        "an RSA key needs 2048 to 4096 bits, and an odd exponent of at most 32 bits";
    const ED25519_BYTES: &str =
        "the key is not for Ed25519, or is weak: anyone can forge signatures for it";
    const PRIVATE: &str = "the key is private; use the public key, which is enough to verify";
    const PEM_SECRET: &str = "a key in PEM is not a secret; use `JwtKey::public_pem`";
    const NO_SECRET: &str =
        "a public key is not a secret; use `JwtKey::hmac` for HS256, HS384, HS512";
    const LEEWAY: &str = "a leeway of more than an hour accepts tokens that expired long ago";

    fn message<T>(result: Result<T, ConfigError>) -> Option<String> {
        result.err().map(|error| error.to_string())
    }
    let hmac = |algorithm, length| message(JwtKey::hmac(algorithm, &[7; 64][..length]));
    let pem_secret = |algorithm, pem: &str| message(JwtKey::hmac(algorithm, pem.as_bytes()));
    let pem = |algorithm, pem: &str| message(JwtKey::public_pem(algorithm, pem));
    let ed25519_bytes =
        URL_SAFE_NO_PAD.decode(jwk(Algorithm::EdDSA, json!({}))["x"].as_str().unwrap()).unwrap();
    let rsa = |n: &[u8], e: &[u8]| {
        let number =
            |number: &[u8]| der(2, &[&[0], number].concat()[usize::from(number[0] < 0x80)..]);
        pem_of("RSA PUBLIC KEY", &der(0x30, &[number(n), number(e)].concat()))
    };
    let ed25519 = |bytes: &[u8]| {
        let algorithm = der(0x30, &der(6, &[0x2b, 0x65, 0x70]));
        pem_of("PUBLIC KEY", &der(0x30, &[algorithm, der(3, &[&[0], bytes].concat())].concat()))
    };
    let leeway = |leeway| message(verifier().leeway(leeway));
    let cut = &RSA_PUBLIC[..RSA_PUBLIC.len() / 2];
    let garbage = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
    for (case, (found, expected)) in [
        (hmac(HS256, 32), None),
        (hmac(HS256, 31), Some(SHORT)),
        (hmac(HS256, 0), Some(SHORT)),
        (hmac(HS384, 48), None),
        (hmac(HS384, 47), Some(SHORT)),
        (hmac(HS512, 64), None),
        (hmac(HS512, 63), Some(SHORT)),
        (hmac(RS256, 64), Some(WRONG)),
        (hmac(PS512, 64), Some(WRONG)),
        (hmac(ES256, 64), Some(WRONG)),
        (hmac(EdDSA, 64), Some(WRONG)),
        (pem_secret(HS256, RSA_PUBLIC), Some(PEM_SECRET)),
        (pem_secret(HS256, RSA), Some(PEM_SECRET)),
        (pem_secret(HS384, P256_PUBLIC), Some(PEM_SECRET)),
        (pem_secret(HS512, ED25519), Some(PEM_SECRET)),
        (pem_secret(EdDSA, ED25519_PUBLIC), Some(PEM_SECRET)),
        (pem_secret(HS256, &format!("\n {RSA_PUBLIC}")), Some(PEM_SECRET)),
        (pem_secret(HS256, &format!("Bag Attributes\n{RSA_PUBLIC}")), Some(PEM_SECRET)),
        (pem(RS256, RSA_PUBLIC), None),
        (pem(RS256, RSA_1024_PUBLIC), Some(RSA_BITS)),
        (pem(PS256, RSA_1024_PUBLIC), Some(RSA_BITS)),
        (pem(RS256, &rsa(&[0xff; 256], &[1, 0, 1])), None),
        (pem(RS256, &rsa(&[0xff; 512], &[1, 0, 1])), None),
        (pem(RS256, &rsa(&[0xff; 513], &[1, 0, 1])), Some(RSA_BITS)),
        (pem(PS512, &rsa(&[0xff; 1024], &[1, 0, 1])), Some(RSA_BITS)),
        (pem(RS256, RSA), Some(PRIVATE)),
        (pem(HS256, RSA), Some(PRIVATE)),
        (pem(RS256, P256_PUBLIC), Some(NO_PEM)),
        (pem(RS256, ED25519_PUBLIC), Some(NO_PEM)),
        (pem(RS256, ""), Some(NO_PEM)),
        (pem(RS256, "garbage"), Some(NO_PEM)),
        (pem(RS256, garbage), Some(NO_PEM)),
        (pem(RS256, cut), Some(NO_PEM)),
        (pem(ES256, P256_PUBLIC), None),
        (pem(ES256, P384_PUBLIC), Some(WRONG)),
        (pem(ES384, P256_PUBLIC), Some(WRONG)),
        (pem(ES256, P256), Some(PRIVATE)),
        (pem(ES256, RSA_PUBLIC), Some(NO_PEM)),
        (pem(ES256, ED25519_PUBLIC), Some(NO_PEM)),
        (pem(EdDSA, ED25519_PUBLIC), None),
        (pem(EdDSA, ED25519), Some(PRIVATE)),
        (pem(EdDSA, &ed25519(&[])), Some(ED25519_BYTES)),
        (pem(EdDSA, &ed25519(&[7; 1])), Some(ED25519_BYTES)),
        (pem(EdDSA, &ed25519(&[7; 31])), Some(ED25519_BYTES)),
        (pem(EdDSA, &ed25519(&[7; 33])), Some(ED25519_BYTES)),
        (pem(EdDSA, &ed25519(&[7; 64])), Some(ED25519_BYTES)),
        (pem(EdDSA, &ed25519(&ed25519_bytes)), None),
        (pem(EdDSA, &ed25519(&[NO_POINT; 32])), Some(ED25519_BYTES)),
        // Keys of small order: any signature is valid for them.
        (pem(EdDSA, &ed25519(&[0; 32])), Some(ED25519_BYTES)),
        (pem(EdDSA, &ed25519(&[&[1][..], &[0; 31]].concat())), Some(ED25519_BYTES)),
        (pem(EdDSA, P256_PUBLIC), Some(NO_PEM)),
        (pem(HS256, RSA_PUBLIC), Some(NO_SECRET)),
        (pem(HS512, ED25519_PUBLIC), Some(NO_SECRET)),
        (leeway(Duration::ZERO), None),
        (leeway(Duration::from_secs(3600)), None),
        (leeway(Duration::from_millis(3_600_001)), Some(LEEWAY)),
        (leeway(Duration::MAX), Some(LEEWAY)),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(found.as_deref(), expected, "case {case}");
    }
    for exponent in [&[0][..], &[1], &[2], &[1, 0, 0], &[1, 0, 0, 0, 1]] {
        assert!(pem(RS256, &rsa(&[0xff; 256], exponent)).is_some(), "{exponent:?}");
    }
}

/// Each generation has its own key; tasks run handshakes with tokens of all generations during the replacements.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keys_are_replaced_during_handshakes() {
    const GENERATIONS: usize = 20;
    const HANDSHAKES: usize = 100;

    let secret = |generation: usize| [u8::try_from(generation).unwrap() + 1; 32];
    let key = |generation| JwtKey::hmac(HS256, &secret(generation)).unwrap();
    let token = |generation| {
        encode(&Header::default(), &good(), &EncodingKey::from_secret(&secret(generation)).unwrap())
            .unwrap()
    };
    // The last token is signed with a key that is never used.
    let tokens = (0..=GENERATIONS).map(token).collect::<Arc<[_]>>();
    let keys = JwtKeys::new([key(0)]);
    let layer = TokenCheckLayer::new(TokenPolicy::bearer(JwtVerifier::<Value>::new(keys.clone())));
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));

    // The last replacement that was begun, the last that has returned, and the number of completed handshakes.
    let [begun, returned, completed] = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
    let tasks = (0..4).map(|_| {
        let service = layer.layer(inner);
        let tokens = Arc::clone(&tokens);
        let (begun, returned, completed) =
            (Arc::clone(&begun), Arc::clone(&returned), Arc::clone(&completed));
        tokio::spawn(async move {
            let mut accepted = 0;
            // One more round after the last replacement.
            for last in std::iter::repeat_with(|| returned.load(SeqCst) == GENERATIONS - 1) {
                for (generation, token) in tokens.iter().enumerate() {
                    let oldest = returned.load(SeqCst);
                    let raw = handshake().and("Authorization", format!("Bearer {token}"));
                    let response = service.clone().oneshot(raw.request()).await.unwrap();
                    let newest = begun.load(SeqCst);

                    let kind = response.extensions().get::<Rejection>().map(Rejection::kind);
                    let good = response.status() == 200 && kind.is_none();
                    assert!(
                        good || response.status() == 401
                            && kind == Some(RejectionKind::TokenInvalid),
                        "{response:?}"
                    );
                    if !(oldest..=newest).contains(&generation) {
                        assert!(!good, "{generation} is not of {oldest} to {newest}");
                    } else if oldest == newest {
                        assert!(good, "{generation} is the key of all the time");
                    }
                    accepted += usize::from(good);
                    completed.fetch_add(1, SeqCst);
                }
                if last {
                    break;
                }
                tokio::task::yield_now().await;
            }
            accepted
        })
    });
    let tasks = tasks.collect::<Vec<_>>();
    for generation in 1..GENERATIONS {
        while completed.load(SeqCst) < generation * HANDSHAKES
            && !tasks.iter().any(|task| task.is_finished())
        {
            tokio::task::yield_now().await;
        }
        begun.store(generation, SeqCst);
        keys.replace([key(generation)]);
        returned.store(generation, SeqCst);
    }
    for task in tasks {
        assert!(task.await.unwrap() > 0);
    }
}

#[tokio::test]
async fn key_rotation_accepts_old_and_new_keys() {
    let keys = JwtKeys::new([]);
    let verifier = JwtVerifier::<Value>::new(keys.clone());
    let (old, new) = ([1; 32], [2; 32]);
    let key = |secret| JwtKey::hmac(HS256, secret).unwrap();
    let token = |secret| {
        encode(&Header::default(), &good(), &EncodingKey::from_secret(secret).unwrap()).unwrap()
    };
    let unknown = SIGNATURE;
    for (replacement, of_old, of_new) in [
        (vec![], NO_KEYS, NO_KEYS),
        (vec![key(&old)], ACCEPTED, unknown),
        (vec![key(&new), key(&old)], ACCEPTED, ACCEPTED),
        (vec![key(&new)], unknown, ACCEPTED),
        (vec![], NO_KEYS, NO_KEYS),
    ] {
        keys.replace(replacement);
        // A clone shares the keys.
        for verifier in [&verifier, &verifier.clone()] {
            check(verifier, &token(&old), of_old).await;
            check(verifier, &token(&new), of_new).await;
        }
    }
    // The reason is that of the key that verified the signature.
    keys.replace([key(&old), key(&new)]);
    let expired =
        encode(&Header::default(), &json!({ "exp": 1 }), &EncodingKey::from_secret(&old).unwrap())
            .unwrap();
    check(&verifier, &expired, EXPIRED).await;
}

#[tokio::test]
async fn claims_and_expiry_reach_the_inner_service() {
    let inner = service_fn(async |request: Request<()>| {
        let extensions = request.extensions();
        let Claims(claims) = extensions.get::<Claims<Value>>().unwrap().clone();
        Ok::<_, Infallible>(Response::new(Some((
            claims,
            extensions.get::<Validity>().and_then(Validity::expires_at),
        ))))
    });
    let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
    for (exp, leeway, expires_at) in [
        (json!(FUTURE), None, at(FUTURE + 60)),
        (json!(FUTURE), Some(Duration::ZERO), at(FUTURE)),
        (json!(FUTURE), Some(Duration::from_secs(30)), at(FUTURE + 30)),
        (json!(FUTURE), Some(Duration::from_millis(1999)), at(FUTURE + 1)),
        (json!(4_102_444_800.0), Some(Duration::from_secs(3600)), at(FUTURE + 3600)),
        // Later than the clock of the system reaches.
        (json!(u64::MAX), None, None),
    ] {
        let mut verifier = verifier();
        if let Some(leeway) = leeway {
            verifier = verifier.leeway(leeway).unwrap();
        }
        let claims =
            json!({ "exp": exp, "sub": "alice", "roles": ["a", "b"], "nested": { "n": 1 } });
        let raw = handshake()
            .and("Authorization", format!("Bearer {}", hs256_claims(claims.to_string())));
        let layer = GuardLayer::new(AllowOrigin::same_origin())
            .token(TokenPolicy::bearer(verifier))
            .unwrap();
        for request in raw.over_both() {
            let response = layer.layer(inner).oneshot(request).await.unwrap();
            assert_eq!(
                response.into_body(),
                Some((claims.clone(), expires_at)),
                "{exp} {leeway:?}"
            );
        }
    }

    let verifier = JwtVerifier::<User>::new(JwtKeys::new([secret_key()]));
    let claims = json!({ "exp": FUTURE, "sub": "alice", "level": 3 }).to_string();
    let verified = verifier.verify(Token::new(hs256_claims(claims)), &parts()).await.unwrap();
    assert_eq!(*verified.claims(), User { sub: "alice".to_owned(), level: 3, scope: None });
    assert_eq!(verified.validity().expires_at(), at(FUTURE + 60));
}

#[test]
fn debug_output_hides_the_secret() {
    let shown = |key: JwtKey| {
        let keys = JwtKeys::new([key.clone()]);
        let verifier = JwtVerifier::<Value>::new(keys.clone())
            .issuer("https://id.example.com")
            .audience("chat");
        let layer = TokenCheckLayer::new(TokenPolicy::bearer(verifier.clone()));
        let shown = format!(
            "{key:?} {key:#?} {keys:?} {keys:#?} {verifier:?} {verifier:#?} {layer:?} {layer:#?}"
        );
        shown.split_whitespace().collect::<String>().to_lowercase()
    };
    let oct =
        JwtKey::from_jwks(&set([jwk(Algorithm::HS256, json!({}))]), &[HS256]).unwrap().remove(0);
    for key in [secret_key(), secret_key().key_id("2026"), oct] {
        let shown = shown(key);
        // Three of its bytes would be too many.
        for bytes in SECRET.windows(3) {
            let [a, b, c] = *bytes else { unreachable!() };
            for secret in [
                String::from_utf8_lossy(bytes).to_lowercase(),
                format!("{a},{b},{c}"),
                format!("{a:02x}{b:02x}{c:02x}"),
                format!("0x{a:02x},0x{b:02x}"),
            ] {
                assert!(!shown.contains(&secret), "{secret} in {shown}");
            }
        }
        for encoded in [b64(SECRET), STANDARD.encode(SECRET)] {
            assert!(!shown.contains(&encoded[..8].to_lowercase()), "{encoded} in {shown}");
        }
        assert!(shown.contains("hs256") && shown.contains("https://id.example.com"), "{shown}");
    }
}
