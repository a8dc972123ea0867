//! Signing in with a browser at an issuer, and what others try with what browsers keep.

use std::collections::BTreeSet;
use std::time::Duration;

use http::header::{COOKIE, SET_COOKIE};
use url::Url;

use super::*;

const PAGE: (&str, &str) = ("accept", "text/html");

/// A tunnel at which people sign in.
fn login(issuer: &TestIssuer, uid: &str, allow: Value) -> Live {
    live(
        uid,
        json!({ "oidc": {
            "issuerUrl": issuer.url, "clientId": "hive", "secretName": "client", "scopes": ["email", "groups"],
            "allow": allow, "sessionDuration": "12h",
        } }),
    )
}

async fn ask(
    doorman: &Doorman,
    live: &Live,
    path: &str,
    cookies: &[String],
) -> Result<Option<Response<Body>>, Denied> {
    let cookies = cookies.join("; ");
    let mut request = request(path, &[PAGE, ("cookie", &*cookies)]);
    let client = CLIENT.parse().unwrap();
    doorman.admit(live, client, "/", &mut request).await
}

fn location(answer: &Response<Body>) -> String {
    answer.headers()[LOCATION].to_str().unwrap().to_owned()
}

/// `name=value` of what a browser is to keep.
fn kept(answer: &Response<Body>) -> Vec<String> {
    let lines = answer.headers().get_all(SET_COOKIE).iter();
    let lines = lines.map(|line| line.to_str().unwrap());
    let pairs = lines.map(|line| line.split(';').next().unwrap().to_owned());
    pairs.filter(|pair| !pair.ends_with('=')).collect()
}

fn path_of(url: &Url) -> String {
    format!("{}?{}", url.path(), url.query().unwrap_or_default())
}

/// Begins at a page: where the browser is sent, and what it keeps.
async fn begin(doorman: &Doorman, live: &Live, page: &str) -> (String, Vec<String>) {
    let away = ask(doorman, live, page, &[]).await.unwrap().unwrap();
    assert_eq!(away.status(), StatusCode::FOUND);
    assert_eq!(away.headers()["cache-control"], "no-store");
    (location(&away), kept(&away))
}

/// Signs in at a page, as a browser does that is sent to the issuer and back: what it is answered then.
async fn sign_in(
    doorman: &Doorman,
    live: &Live,
    issuer: &TestIssuer,
    page: &str,
) -> Response<Body> {
    let (away, attempt) = begin(doorman, live, page).await;
    let back = path_of(&issuer.sign_in(&away, |_| {}));
    let answer = ask(doorman, live, &back, &attempt).await;
    answer.unwrap().unwrap()
}

/// Why somebody is not let in.
fn why(found: Result<Option<Response<Body>>, Denied>) -> String {
    match found {
        Ok(None) => "let in".to_owned(),
        Ok(Some(answer)) => answer.status().as_str().to_owned(),
        Err(denied) => format!("{}: {denied}", denied.reason()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_signs_in_comes_back_to_the_page_and_stays_signed_in() {
    let issuer = TestIssuer::start().await;
    let live = login(&issuer, "uid", json!({ "domains": ["example.org"] }));
    // The browser may come back to another controller.
    let (first, second) = (Doorman::new(issuer.roots()), Doorman::new(issuer.roots()));
    let (page, attempt) = begin(&first, &live, "/album?id=7").await;
    assert!(page.contains("scope=openid+email+groups"), "{page}");
    let back = issuer.sign_in(&page, |_| {});
    assert_eq!(
        back.as_str().split('?').next(),
        Some("http://photos.example/.hive/callback")
    );
    let answer = ask(&second, &live, &path_of(&back), &attempt)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    assert_eq!(location(&answer), "http://photos.example/album?id=7");
    let session = kept(&answer);
    assert_eq!(session.len(), 1, "the attempt is forgotten: {session:?}");

    let mut request = request(
        "/album?id=7",
        &[
            ("cookie", &*format!("own=1; {}", session[0])),
            ("x-hive-user", "root"),
            ("x-auth-request-email", "root@example.org"),
            ("authorization", "Bearer the service's own"),
        ],
    );
    assert_eq!(outcome(&first, &live, &mut request).await, "let in");
    for (name, expected) in [
        ("x-hive-user", "ada@example.org"),
        ("x-auth-request-user", "1234"),
        ("x-auth-request-email", "ada@example.org"),
        ("x-auth-request-groups", "makers,readers"),
        ("cookie", "own=1"),
        ("authorization", "Bearer the service's own"),
    ] {
        assert_eq!(text(&request, name), expected, "{name}");
    }

    // Rules that change hold at once, and so does another issuer.
    let stricter = login(&issuer, "uid", json!({ "emails": ["bob@example.org"] }));
    assert_eq!(why(ask(&first, &stricter, "/", &session).await), "302");
    // Another site may have sent the browser there.
    let form = ask(&first, &live, "/.hive/logout", &session)
        .await
        .unwrap()
        .unwrap();
    assert!(!form.headers().contains_key(SET_COOKIE));
    assert_eq!(form.headers()["content-type"], "text/html; charset=utf-8");
    let mut sent = super::request("/.hive/logout", &[("origin", "http://photos.example")]);
    *sent.method_mut() = Method::POST;
    let client = CLIENT.parse().unwrap();
    let out = first.admit(&live, client, "/", &mut sent).await;
    let out = out.unwrap().unwrap();
    assert_eq!(out.status(), StatusCode::OK);
    let line = out.headers()[SET_COOKIE].to_str().unwrap();
    assert!(
        line.starts_with("hive-session-") && line.contains("Max-Age=0"),
        "{line}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_were_not_given_here_open_nothing() {
    let issuer = TestIssuer::start().await;
    let doorman = Doorman::new(issuer.roots());
    let live = login(&issuer, "uid", json!({}));
    let session = kept(&sign_in(&doorman, &live, &issuer, "/").await).remove(0);
    assert_eq!(
        why(ask(&doorman, &live, "/", std::slice::from_ref(&session)).await),
        "let in"
    );
    let (name, value) = session.split_once('=').unwrap();
    let mut changed = value.to_owned();
    let last = if changed.pop() == Some('A') { 'B' } else { 'A' };
    changed.push(last);
    let (_, attempt) = begin(&doorman, &live, "/").await;
    let attempt = attempt[0].split_once('=').unwrap().1;
    for cookie in [
        format!("{name}={changed}"),
        format!("{name}={}", &value[..value.len() - 4]),
        format!("{name}="),
        format!("{name}=eyJ3aG8iOnsic3ViamVjdCI6InJvb3QifX0"),
        // What is sealed for something else.
        format!("{name}={attempt}"),
    ] {
        let found = ask(&doorman, &live, "/", std::slice::from_ref(&cookie)).await;
        assert_eq!(why(found), "302", "{cookie}");
    }
    // Given when the tunnel was another client of the issuer.
    let other = json!({ "issuerUrl": issuer.url, "clientId": "other" });
    let other = super::live("uid", json!({ "oidc": other }));
    let found = ask(&doorman, &other, "/", std::slice::from_ref(&session)).await;
    assert_eq!(why(found), "302");
    // Of another tunnel, under the name that its own cookie would have.
    let other = login(&issuer, "uid-2", json!({}));
    let stolen = kept(&sign_in(&doorman, &other, &issuer, "/").await).remove(0);
    let stolen = format!("{name}={}", stolen.split_once('=').unwrap().1);
    assert_eq!(why(ask(&doorman, &live, "/", &[stolen]).await), "302");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_did_not_begin_a_login_cannot_end_it() {
    let issuer = TestIssuer::start().await;
    let doorman = Doorman::new(issuer.roots());
    let live = login(&issuer, "uid", json!({ "groups": ["makers"] }));
    let nobody_began = "LoginFailed: signing in came to nothing: this browser did not begin it, or ended it already; open the page again";
    // Another browser, such as one that was sent a link.
    let (page, attempt) = begin(&doorman, &live, "/").await;
    let back = path_of(&issuer.sign_in(&page, |_| {}));
    assert_eq!(why(ask(&doorman, &live, &back, &[]).await), nobody_began);
    let (_, other) = begin(&doorman, &live, "/").await;
    assert_eq!(why(ask(&doorman, &live, &back, &other).await), nobody_began);
    // Another state, with the cookie of the attempt under every name.
    let (_, sealed) = attempt[0].split_once('=').unwrap();
    let renamed: Vec<String> = (0..16)
        .map(|place: u8| {
            let place = place.to_string();
            let name = cookies::name(cookies::ATTEMPT, &["uid", &place], false);
            format!("{name}={sealed}")
        })
        .collect();
    assert!(renamed.contains(&attempt[0]));
    let forged = "/.hive/callback?code=x&state=forged";
    assert_eq!(
        why(ask(&doorman, &live, forged, &renamed).await),
        nobody_began
    );
    // The first time is good; a second time the issuer has no such code.
    assert_eq!(why(ask(&doorman, &live, &back, &attempt).await), "303");
    let again = why(ask(&doorman, &live, &back, &attempt).await);
    assert!(again.contains("no token for the code"), "{again}");
    for (query, expected) in [
        ("error=access_denied", "the issuer refused"),
        ("code=x&iss=https%3A%2F%2Fevil.example", "another issuer"),
        ("", "gave no code"),
    ] {
        let (page, attempt) = begin(&doorman, &live, "/").await;
        let page = Url::parse(&page).unwrap();
        let mut pairs = page.query_pairs();
        let state = pairs.find(|(name, _)| name == "state").unwrap().1;
        let back = format!("/.hive/callback?state={state}&{query}");
        let found = why(ask(&doorman, &live, &back, &attempt).await);
        assert!(found.contains(expected), "{query}: {found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_with_many_tabs_keeps_few_cookies() {
    let issuer = TestIssuer::start().await;
    let doorman = Doorman::new(issuer.roots());
    let live = login(&issuer, "uid", json!({}));
    let mut names = BTreeSet::new();
    for _ in 0..100 {
        let (_, attempt) = begin(&doorman, &live, "/").await;
        names.insert(attempt[0].split_once('=').unwrap().0.to_owned());
    }
    assert!((2..=16).contains(&names.len()), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_must_be_the_answer_to_the_login() {
    let issuer = TestIssuer::start().await;
    let doorman = Doorman::new(issuer.roots());
    let live = login(&issuer, "uid", json!({ "groups": ["makers"] }));
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 7] = [
        (|_| {}, "303"),
        (
            |it| it["nonce"] = json!("another"),
            "not the answer to this login",
        ),
        (
            |it| it["nonce"] = Value::Null,
            "not the answer to this login",
        ),
        (|it| it["aud"] = json!("other"), "not for client"),
        (
            |it| it["aud"] = json!(["hive", "other"]),
            "given to another client",
        ),
        (|it| it["exp"] = json!(1), "expired"),
        (
            |it| it["groups"] = json!(["others"]),
            "UserNotAllowed: \"ada@example.org\" is known",
        ),
    ];
    for (change, expected) in cases {
        let (page, attempt) = begin(&doorman, &live, "/").await;
        let back = path_of(&issuer.sign_in(&page, change));
        let found = why(ask(&doorman, &live, &back, &attempt).await);
        assert!(found.contains(expected), "{expected}: {found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_led_to_another_host() {
    let issuer = TestIssuer::start().await;
    let doorman = Doorman::new(issuer.roots());
    let live = login(&issuer, "uid", json!({}));
    for page in [
        "//evil.example/x",
        "/%2F%2Fevil.example",
        "/?to=https://evil.example",
    ] {
        let answer = sign_in(&doorman, &live, &issuer, page).await;
        let url = Url::parse(&location(&answer)).unwrap();
        assert_eq!(url.host_str(), Some("photos.example"), "{page}");
    }
    // Nor is a script, which could not follow.
    let mut request = request("/api", &[("accept", "application/json")]);
    assert_eq!(
        outcome(&doorman, &live, &mut request).await,
        "Unauthenticated"
    );
    assert!(!request.headers().contains_key(COOKIE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_its_time_is_over() {
    let issuer = TestIssuer::start().await;
    let doorman = Doorman::new(issuer.roots());
    let live = login(&issuer, "uid", json!({}));
    let answer = sign_in(&doorman, &live, &issuer, "/").await;
    let line = answer.headers()[SET_COOKIE].to_str().unwrap();
    assert!(line.contains("; Max-Age=43200; "), "{line}");
    let request = request("/", &[("cookie", &*kept(&answer)[0])]);
    let tunnel = live.tunnel();
    let rules = (*tunnel.access).as_ref().unwrap();
    let login = rules.login.as_ref().unwrap();
    let place = Place::of(&request, "/");
    let now = SystemTime::now();
    // Whatever the browser does with the cookie.
    for (hours, is_one) in [(0, true), (11, true), (12, false), (1000, false)] {
        let then = now + Duration::from_secs(hours * 3600);
        let found = login.session(request.headers(), &place, then);
        assert_eq!(found.is_some(), is_one, "after {hours} h");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_ends_when_its_time_is_over() {
    let issuer = TestIssuer::start().await;
    let doorman = Doorman::new(issuer.roots());
    let live = login(&issuer, "uid", json!({}));
    let (page, attempt) = begin(&doorman, &live, "/").await;
    let back = path_of(&issuer.sign_in(&page, |_| {}));
    let request = request(&back, &[("cookie", &*attempt[0])]);
    let tunnel = live.tunnel();
    let rules = (*tunnel.access).as_ref().unwrap();
    let login = rules.login.as_ref().unwrap();
    let (place, issuers) = (Place::of(&request, "/"), Issuers::new(issuer.roots()));
    let later = SystemTime::now() + Duration::from_secs(11 * 60);
    let ended = login.take_back(&issuers, &place, request.uri(), request.headers(), later);
    let why = ended.await.err().unwrap().to_string();
    assert!(why.contains("it took too long"), "{why}");
}

/// A cookie has no room for it.
#[tokio::test(flavor = "multi_thread")]
async fn who_asked_for_a_page_of_a_long_name_comes_to_the_first() {
    let issuer = TestIssuer::start().await;
    let doorman = Doorman::new(issuer.roots());
    let live = login(&issuer, "uid", json!({}));
    let page = format!("/album?{}", "x".repeat(600));
    let answer = sign_in(&doorman, &live, &issuer, &page).await;
    assert_eq!(location(&answer), "http://photos.example/");
}
