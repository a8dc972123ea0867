#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const CA: [u8; 32] = [7; 32];

fn secret_text() -> impl Strategy<Value = String> {
    "[a-z2-7]{8}-[a-z2-7]{52}"
}

proptest! {
    #[test]
    fn join_tokens_read_back(ca: [u8; 32], secret in secret_text()) {
        let token = JoinToken { ca: ca.into(), secret: secret.parse().unwrap() };
        let text = token.to_string();
        let again: JoinToken = format!("  {text}\n").parse().unwrap();
        prop_assert_eq!(again.ca, token.ca);
        prop_assert_eq!(again.to_string(), text);
    }

    #[test]
    fn api_tokens_read_back(secret in secret_text()) {
        let token = ApiToken { secret: secret.parse().unwrap() };
        prop_assert_eq!(token.to_string().parse::<ApiToken>().unwrap().to_string(), token.to_string());
    }

    #[test]
    fn any_text_parses_or_fails_without_a_panic(text: String) {
        let _ = text.parse::<JoinToken>();
        let _ = text.parse::<ApiToken>();
        let _ = text.parse::<TokenSecret>();
    }

    #[test]
    fn a_cut_token_is_refused(keep in 0usize..131) {
        let text = JoinToken::generate(CA.into()).to_string();
        prop_assert_eq!(text.len(), 132);
        prop_assert!(text[..keep].parse::<JoinToken>().is_err());
    }

    #[test]
    fn one_changed_character_never_verifies(at in 0usize..61, to in "[a-z2-7]") {
        let secret = TokenSecret::generate();
        let mut text = secret.to_string();
        text.replace_range(at..=at, &to);
        prop_assume!(text != secret.to_string());
        if let Ok(other) = text.parse::<TokenSecret>() {
            prop_assert!(!secret.hash().verify(&other));
        }
    }
}

#[test]
fn what_is_generated_verifies_and_differs_each_time() {
    let secret = TokenSecret::generate();
    let read: TokenSecret = secret.to_string().parse().unwrap();
    assert!(secret.hash().verify(&read));
    assert_eq!(secret.id(), read.id());
    assert!(secret.to_string().starts_with(secret.id()));
    assert_ne!(TokenSecret::generate().to_string(), secret.to_string());
}

#[test]
fn stored_hash_reads_back_and_still_verifies() {
    let secret = TokenSecret::generate();
    let stored = serde_json::to_string(&secret.hash()).unwrap();
    let hash: TokenHash = serde_json::from_str(&stored).unwrap();
    assert!(hash.verify(&secret));
    assert!(!stored.contains(&secret.to_string()[ID_CHARS + 1..]));
}

#[test]
fn damaged_tokens_say_what_is_wrong() {
    let ca = CaFingerprint::from(CA);
    let secret = TokenSecret::generate();
    let join = |text: &str| text.parse::<JoinToken>().unwrap_err();
    let api = |text: &str| text.parse::<ApiToken>().unwrap_err();

    assert_eq!(join(""), TokenError::NotJoin);
    assert_eq!(join("abc.def"), TokenError::NotJoin);
    assert_eq!(join("hivex.def"), TokenError::NotJoin);
    assert_eq!(
        join(&format!("hive2.{ca}.{secret}")),
        TokenError::Version(2)
    );
    assert_eq!(
        join(&ApiToken::generate().to_string()),
        TokenError::ApiInsteadOfJoin
    );
    assert_eq!(
        join(&format!("hive1.abc.{secret}")),
        TokenError::Fingerprint(FingerprintError::TextLength { found: 3 })
    );
    assert_eq!(join(&format!("hive1.{ca}")), TokenError::NoSecret);
    assert_eq!(
        join(&format!("hive1.{ca}.abcdefgh")),
        TokenError::SecretLength {
            before: 8,
            after: 0
        }
    );
    assert_eq!(
        join(&format!("hive1.{ca}.{secret}x")),
        TokenError::SecretLength {
            before: 8,
            after: 53
        }
    );
    assert_eq!(
        join(&format!("hive1.{ca}.{}", secret.to_string().to_uppercase())),
        TokenError::SecretCharacter
    );
    assert_eq!(
        api(&JoinToken::generate(ca).to_string()),
        TokenError::JoinInsteadOfApi
    );
    assert_eq!(api("abc"), TokenError::NotApi);
}

#[test]
fn secrets_stay_out_of_debug_and_errors() {
    let token = JoinToken::generate(CA.into());
    let text = token.secret.to_string();
    let hidden = &text[ID_CHARS + 1..];
    assert!(!format!("{token:?}").contains(hidden));
    let error = format!("hive1.{}.{text}x", token.ca)
        .parse::<JoinToken>()
        .unwrap_err();
    assert!(!format!("{error} {error:?}").contains(hidden));
}
