#![allow(clippy::unwrap_used)]

use super::*;

/// A length-delimited field.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
    bytes.extend(content);
    bytes
}

fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let types = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
    [
        MAGIC.to_vec(),
        field(1, &types),
        field(2, raw),
        field(3, b""),
        field(4, b""),
    ]
    .concat()
}

fn secret() -> Vec<u8> {
    let label = [field(1, b"app"), field(2, b"x")].concat();
    let metadata = [
        field(1, b"s"),
        field(2, b""),
        field(3, b"default"),
        vec![7 << 3, 0],
        field(8, b""),
        field(11, &label),
        field(14, b"a/b"),
    ]
    .concat();
    let data = [field(1, b"k"), field(2, &[0xff, 0])].concat();
    [
        field(1, &metadata),
        field(2, &data),
        field(3, b"Opaque"),
        vec![5 << 3, 1],
    ]
    .concat()
}

#[test]
fn a_secret_becomes_the_json_that_go_would_write() {
    let decoded = decode(&envelope("v1", "Secret", &secret())).unwrap();
    assert_eq!(
        decoded,
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": "s",
                "namespace": "default",
                "labels": { "app": "x" },
                "finalizers": ["a/b"],
            },
            "data": { "k": "/wA=" },
            "type": "Opaque",
            "immutable": true,
        })
    );
}

#[test]
fn times_are_texts_and_no_time_is_left_out() {
    let event = [
        field(6, &[1 << 3, 60]),
        field(7, b""),
        field(10, &[1 << 3, 60, 2 << 3, 0xe8, 0x07]),
    ]
    .concat();
    let decoded = decode(&envelope("v1", "Event", &event)).unwrap();
    assert_eq!(decoded["firstTimestamp"], "1970-01-01T00:01:00Z");
    assert_eq!(decoded["eventTime"], "1970-01-01T00:01:00.000001Z");
    assert!(decoded.get("lastTimestamp").is_none());
}

#[test]
fn the_core_group_of_a_role_is_not_lost() {
    let rule = [field(1, b"get"), field(2, b""), field(3, b"secrets")].concat();
    let role = [field(1, &field(1, b"r")), field(2, &rule)].concat();
    let decoded = decode(&envelope("rbac.authorization.k8s.io/v1", "Role", &role)).unwrap();
    assert_eq!(
        decoded["rules"],
        json!([{ "verbs": ["get"], "apiGroups": [""], "resources": ["secrets"] }])
    );
}

#[test]
fn quantities_are_texts() {
    let amount = |name: &[u8], text: &[u8]| {
        let quantity = field(1, text);
        field(1, &[field(1, name), field(2, &quantity)].concat())
    };
    let spec = [amount(b"memory", b"1Gi"), amount(b"secrets", b"2")].concat();
    let quota = [field(1, &field(1, b"q")), field(2, &spec)].concat();
    let decoded = decode(&envelope("v1", "ResourceQuota", &quota)).unwrap();
    assert_eq!(
        decoded["spec"],
        json!({ "hard": { "memory": "1Gi", "secrets": "2" } })
    );
}

#[test]
fn an_approval_carries_its_conditions() {
    let spec = [
        field(1, b"pem"),
        field(2, b"sender"),
        field(5, b"client auth"),
        field(7, b"a/b"),
        vec![8 << 3, 60],
    ]
    .concat();
    let condition = [
        field(1, b"Approved"),
        field(2, b"KubectlApprove"),
        field(4, &[1 << 3, 60]),
        field(5, b""),
        field(6, b"True"),
    ]
    .concat();
    let request = [
        field(1, &field(1, b"ann")),
        field(2, &spec),
        field(3, &field(1, &condition)),
    ]
    .concat();
    let group = "certificates.k8s.io/v1";
    let decoded = decode(&envelope(group, "CertificateSigningRequest", &request)).unwrap();
    assert_eq!(
        (&decoded["spec"], &decoded["status"]),
        (
            &json!({
                "request": "cGVt",
                "usages": ["client auth"],
                "signerName": "a/b",
                "expirationSeconds": 60,
            }),
            &json!({ "conditions": [{
                "type": "Approved",
                "status": "True",
                "reason": "KubectlApprove",
                "lastUpdateTime": "1970-01-01T00:01:00Z",
            }] }),
        )
    );
}

#[test]
fn what_cannot_be_read_is_refused() {
    assert_eq!(decode(b"{}"), Err(ProtobufError::NoEnvelope));
    assert_eq!(
        decode(&envelope("apps/v1", "Deployment", b"")),
        Err(ProtobufError::UnknownKind("apps/v1 Deployment".into()))
    );
    let whole = envelope("v1", "Secret", &secret());
    // Cut anywhere in the object, it is never taken for a smaller one of the same kind.
    for length in MAGIC.len() + 20..whole.len() - 4 {
        assert!(decode(&whole[..length]).is_err(), "{length}");
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_decode_or_fail_without_a_panic(raw: Vec<u8>, kind in 0usize..6) {
        let kind = ["Secret", "Event", "ConfigMap", "DeleteOptions", "ResourceQuota", "LimitRange"][kind];
        if raw.len() < 128 {
            let _ = decode(&envelope("v1", kind, &raw));
        }
        let _ = decode(&[MAGIC, &raw].concat());
    }
}
