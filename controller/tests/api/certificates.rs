//! Certificates of people: asked for, approved, shown, revoked.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hive_controller::access::tokens::Role;
use hive_controller::https::ClientChain;
use hive_identity::{
    CertificateAuthority, ClientAuthority, ClientRequest, DeviceKey, Registration,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::harness::{CONFIG_MAPS, Server};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";

fn pem(user: &str, groups: &[&str]) -> String {
    let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
    ClientRequest::make(&DeviceKey::generate(), user, &groups).unwrap()
}

fn request(name: &str, user: &str, groups: &[&str]) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": {
            "request": BASE64.encode(pem(user, groups)),
            "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["digital signature", "client auth"],
            "expirationSeconds": 3600,
        },
    })
}

/// As `kubectl certificate approve` (or deny) sends it.
fn decided(mut request: Value, decision: &str) -> Value {
    request["status"]["conditions"] = json!([{
        "type": decision,
        "status": "True",
        "reason": "KubectlApprove",
        "message": "This CSR was approved by kubectl certificate approve.",
        "lastUpdateTime": "2026-01-01T00:00:00Z",
        "lastTransitionTime": null,
    }]);
    request
}

fn at(name: &str) -> String {
    format!("{REQUESTS}/{name}")
}

fn approval(name: &str) -> String {
    format!("{REQUESTS}/{name}/approval")
}

/// What a client shows that holds the certificate of an approved request.
fn shown(approved: &Value) -> ClientChain {
    let certificate = approved["status"]["certificate"].as_str().unwrap();
    let certificate = BASE64.decode(certificate).unwrap();
    ClientChain::new(vec![CertificateDer::from_pem_slice(&certificate).unwrap()])
}

impl Server {
    async fn certificate(&self, name: &str, user: &str, groups: &[&str]) -> ClientChain {
        let made = self.post(REQUESTS, request(name, user, groups)).await.ok();
        let approved = self.put(&approval(name), decided(made, "Approved")).await;
        shown(&approved.ok())
    }
}

#[tokio::test]
async fn an_approved_request_is_a_certificate_until_it_is_deleted() {
    let server = Server::agreed().await;
    let made = server
        .post(
            REQUESTS,
            request("ada", "ada@example.org", &["hive:edit", "makers"]),
        )
        .await
        .ok();
    assert_eq!(
        made["spec"]["username"].as_str().unwrap().split('-').next(),
        Some("hive:token")
    );
    assert!(made["status"]["certificate"].is_null());
    let approved = server
        .put(&approval("ada"), decided(made, "Approved"))
        .await
        .ok();
    let condition = &approved["status"]["conditions"][0];
    assert!(condition["lastTransitionTime"].is_string(), "{condition}");
    let shown = shown(&approved);

    let who = server
        .request("POST", WHO)
        .showing(&shown)
        .json(&json!({}))
        .send()
        .await
        .ok();
    let user = &who["status"]["userInfo"];
    assert_eq!(user["username"], "ada@example.org");
    assert_eq!(
        user["groups"],
        json!(["hive:edit", "makers", "system:authenticated"])
    );
    let id = user["extra"]["authentication.kubernetes.io/credential-id"][0].as_str();
    assert!(id.unwrap().starts_with("X509SHA256="), "{user}");
    let put = |name: &str| {
        let body = json!({ "metadata": { "name": name } });
        server
            .request("POST", CONFIG_MAPS)
            .showing(&shown)
            .json(&body)
    };
    put("one").send().await.ok();

    // A watch, and a request on what is the same connection: both end with the commit.
    let mut watch = server
        .request("GET", &format!("{CONFIG_MAPS}?watch=1"))
        .showing(&shown)
        .watch()
        .await;
    assert_eq!(watch.next().await, "ADDED one");
    server.delete(&at("ada")).await.ok();
    put("two")
        .send()
        .await
        .fails(401, "Unauthorized", "the client certificate was revoked");
    let event = watch.event().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["code"]),
        (&json!("ERROR"), &json!(401))
    );
    assert_eq!(watch.next().await, "end");

    // Nor does another request of that name bring it back.
    server
        .post(REQUESTS, request("ada", "ada@example.org", &[]))
        .await
        .ok();
    put("two")
        .send()
        .await
        .fails(401, "Unauthorized", "revoked");
}

#[tokio::test]
async fn what_was_not_issued_here_opens_nothing() {
    let server = Server::agreed().await;
    let good = server.certificate("ada", "ada", &["hive:view"]).await;
    server
        .request("GET", CONFIG_MAPS)
        .showing(&good)
        .send()
        .await
        .ok();

    let now = SystemTime::now();
    let asked = ClientRequest::parse(pem("ada", &["system:masters"]).as_bytes()).unwrap();
    let uid = server.get(&at("ada")).await.ok()["metadata"]["uid"].clone();
    let registration = Registration {
        name: "ada".into(),
        uid: uid.as_str().unwrap().into(),
    };
    let chain = |authority: &ClientAuthority, now| {
        let issued = authority
            .issue(&asked, &registration, now, Duration::from_secs(60))
            .unwrap();
        let certificate = CertificateDer::from_pem_slice(issued.pem.as_bytes()).unwrap();
        ClientChain::new(vec![certificate])
    };
    let foreign = CertificateAuthority::create("test").unwrap();
    let foreign = chain(&ClientAuthority::new(&foreign).unwrap(), now);
    let get = || server.request("GET", CONFIG_MAPS);
    get()
        .showing(&foreign)
        .send()
        .await
        .fails(401, "Unauthorized", "not issued by this swarm");
    // Who also has a good token is let in by that.
    get()
        .showing(&foreign)
        .bearing(server.admin())
        .send()
        .await
        .ok();
    let node = CertificateAuthority::create("test").unwrap();
    let csr = DeviceKey::generate().csr().unwrap();
    let subject = hive_identity::Subject::Node { name: "pi".into() };
    let member = node
        .issue(&csr, &subject, &[], now, Duration::from_secs(60))
        .unwrap();
    get()
        .showing(&ClientChain::new(vec![member.der]))
        .send()
        .await
        .fails(401, "Unauthorized", "not issued by this swarm");
    // The good one ends by itself.
    let short = chain(&server.clients, now - Duration::from_secs(61));
    get()
        .showing(&short)
        .send()
        .await
        .fails(401, "Unauthorized", "has expired");
}

#[tokio::test]
async fn what_may_not_be_certified_is_refused_when_it_is_asked_for() {
    let server = Server::agreed().await;
    let post = async |body: &Value| server.post(REQUESTS, body.clone()).await;
    for (user, group) in [
        ("ada", "system:masters"),
        ("system:admin", "a"),
        ("hive:x", "a"),
    ] {
        let answer = post(&request("r", user, &[group])).await;
        answer.fails(403, "Forbidden", "are the swarm's own");
    }
    let good = request("r", "ada", &[]);
    let with = |pointer: &str, value: Value| {
        let mut body = good.clone();
        *body.pointer_mut(pointer).unwrap() = value;
        body
    };
    for (body, message) in [
        (
            with("/spec/request", json!("bm8=")),
            "no certificate request in PEM",
        ),
        (with("/spec/request", json!("?")), "spec.request"),
        (
            with("/spec/signerName", json!("kubernetes.io/kubelet-serving")),
            "the one signer is",
        ),
        (
            with("/spec/usages", json!(["server auth"])),
            "no usage of a client's",
        ),
        (
            with("/spec/expirationSeconds", json!(60)),
            "less than 600 seconds",
        ),
    ] {
        post(&body).await.fails(422, "Invalid", message);
    }
    post(&good).await.ok();
    let changed = json!({ "spec": { "expirationSeconds": 7200 } });
    server.merge(&at("r"), changed).await.fails(
        422,
        "Invalid",
        "spec.expirationSeconds: field is immutable",
    );
    let stolen = json!({ "status": { "certificate": "YQ==" } });
    server
        .merge(&format!("{}/status", at("r")), stolen)
        .await
        .fails(403, "Forbidden", "the swarm writes the status");
    // A label may be changed; who sent it may not.
    let labelled = json!({ "metadata": { "labels": { "a": "b" } }, "spec": { "username": "eve" } });
    let kept = server.merge(&at("r"), labelled).await.ok();
    assert_ne!(kept["spec"]["username"], "eve");
    assert_eq!(kept["metadata"]["labels"]["a"], "b");
}

#[tokio::test]
async fn a_decision_is_for_good() {
    let server = Server::agreed().await;
    let made = server.post(REQUESTS, request("r", "ada", &[])).await.ok();
    let denied = server
        .put(&approval("r"), decided(made.clone(), "Denied"))
        .await
        .ok();
    assert!(denied["status"]["certificate"].is_null());
    let mut both = denied.clone();
    let approved = decided(denied.clone(), "Approved")["status"]["conditions"][0].take();
    both["status"]["conditions"]
        .as_array_mut()
        .unwrap()
        .push(approved);
    server
        .put(&approval("r"), both)
        .await
        .fails(422, "Invalid", "mutually exclusive");
    server
        .put(&approval("r"), decided(denied, "Approved"))
        .await
        .fails(422, "Invalid", "Denied is for good");
}

#[tokio::test]
async fn an_approver_certifies_only_whom_they_may_speak_for() {
    let server = Server::agreed().await;
    let edit = server.token(Role::Edit, None).await;
    let made = server
        .post(REQUESTS, request("r", "ada", &["makers"]))
        .await
        .ok();
    let put = async || {
        server
            .request("PUT", &approval("r"))
            .bearing(&edit)
            .json(&decided(made.clone(), "Approved"))
            .send()
            .await
    };
    put()
        .await
        .fails(403, "Forbidden", "cannot update resource");
    let mut rules = vec![json!({
        "apiGroups": ["certificates.k8s.io"],
        "resources": ["certificatesigningrequests/approval"],
        "verbs": ["update"],
    })];
    let role = |rules: &[Value]| json!({ "metadata": { "name": "approver" }, "rules": rules });
    server.post(ROLES, role(&rules)).await.ok();
    let binding = json!({
        "metadata": { "name": "approver" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "approver" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "hive:edit" }],
    });
    server.post(BINDINGS, binding).await.ok();
    put()
        .await
        .fails(403, "Forbidden", "cannot approve resource \"signers\"");
    for (rule, next) in [
        (
            json!({
                "apiGroups": ["certificates.k8s.io"],
                "resources": ["signers"],
                "resourceNames": ["kubernetes.io/kube-apiserver-client"],
                "verbs": ["approve"],
            }),
            Some("cannot impersonate resource \"users\""),
        ),
        (
            json!({ "apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"] }),
            Some("cannot impersonate resource \"groups\""),
        ),
        (
            json!({
                "apiGroups": [""],
                "resources": ["groups"],
                "resourceNames": ["makers"],
                "verbs": ["impersonate"],
            }),
            None,
        ),
    ] {
        rules.push(rule);
        server
            .put(&format!("{ROLES}/approver"), role(&rules))
            .await
            .ok();
        match next {
            Some(message) => drop(put().await.fails(403, "Forbidden", message)),
            None => drop(put().await.ok()),
        }
    }
}

#[tokio::test]
async fn requests_are_shown_as_kubernetes_shows_them() {
    let server = Server::agreed().await;
    let made = server.post(REQUESTS, request("a", "ada", &[])).await.ok();
    server.post(REQUESTS, request("b", "bob", &[])).await.ok();
    server
        .put(&approval("a"), decided(made, "Approved"))
        .await
        .ok();
    let table = server
        .request("GET", REQUESTS)
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .send()
        .await
        .ok();
    let cells = |row: usize| &table["rows"][row]["cells"];
    for (row, name, condition) in [(0, "a", "Approved,Issued"), (1, "b", "Pending")] {
        assert_eq!(cells(row)[0], name);
        assert_eq!(cells(row)[2], "kubernetes.io/kube-apiserver-client");
        assert_eq!(cells(row)[4], "60m");
        assert_eq!(cells(row)[5], condition);
    }
    // Who only looks at things does not see who has a key.
    let view = server.token(Role::View, None).await;
    server
        .request("GET", REQUESTS)
        .bearing(&view)
        .send()
        .await
        .fails(403, "Forbidden", "certificatesigningrequests");
}

#[tokio::test]
async fn nothing_is_asked_for_that_an_older_controller_could_not_read() {
    let server = Server::start().await;
    let answer = server.post(REQUESTS, request("r", "ada", &[])).await;
    answer.fails(
        503,
        "ServiceUnavailable",
        "once all controllers run a version",
    );
}

#[tokio::test]
async fn the_audit_log_tells_whom_a_certificate_is_for() {
    let server = Server::agreed().await;
    let shown = server
        .certificate("r", "ada", &["hive:edit", "makers"])
        .await;
    let events = server.recorded(|event| event["verb"] == "sign").await;
    let [event] = events.as_slice() else {
        panic!("{events:?}");
    };
    let annotations = &event["annotations"];
    assert_eq!(annotations["hive.dev/certified-user"], "ada");
    assert_eq!(annotations["hive.dev/certified-groups"], "hive:edit,makers");
    assert_eq!(event["objectRef"]["name"], "r");
    let approver = event["user"]["username"].as_str().unwrap();
    assert!(approver.starts_with("hive:token-"), "{approver}");

    // What is done with it names it.
    let made = json!({ "metadata": { "name": "x" } });
    let call = server.request("POST", CONFIG_MAPS).showing(&shown);
    call.json(&made).send().await.ok();
    let events = server
        .recorded(|event| event["user"]["username"] == "ada")
        .await;
    let id = &events[0]["user"]["extra"]["authentication.kubernetes.io/credential-id"][0];
    let fingerprint = annotations["hive.dev/certificate-sha256"].as_str().unwrap();
    assert_eq!(*id, format!("X509SHA256={fingerprint}"));
}
