//! The fields of the messages that are understood, with the numbers of Kubernetes' `generated.proto`.

/// One field of a message.
pub(super) struct Field {
    pub number: u32,
    /// In JSON.
    pub name: &'static str,
    pub form: Form,
    pub repeated: bool,
}

#[derive(Clone, Copy)]
pub(super) enum Form {
    Text,
    Bytes,
    Number,
    Flag,
    Time,
    MicroTime,
    TextMap,
    BytesMap,
    QuantityMap,
    Message(&'static [Field]),
}

const fn one(number: u32, name: &'static str, form: Form) -> Field {
    Field {
        number,
        name,
        form,
        repeated: false,
    }
}

const fn many(number: u32, name: &'static str, form: Form) -> Field {
    Field {
        repeated: true,
        ..one(number, name, form)
    }
}

use Form::{Bytes, BytesMap, Flag, Message, MicroTime, Number, QuantityMap, Text, TextMap, Time};

/// `runtime.Unknown`, the envelope.
pub(super) const UNKNOWN: &[Field] = &[
    one(
        1,
        "typeMeta",
        Message(&[one(1, "apiVersion", Text), one(2, "kind", Text)]),
    ),
    one(2, "raw", Bytes),
];

/// The fields of a kind.
pub(super) fn message_of(api_version: &str, kind: &str) -> Option<&'static [Field]> {
    Some(match (api_version, kind) {
        ("v1", "Namespace") => NAMESPACE,
        ("v1", "ConfigMap") => CONFIG_MAP,
        ("v1", "Secret") => SECRET,
        ("v1", "Event") => EVENT,
        ("v1", "ServiceAccount") => SERVICE_ACCOUNT,
        ("v1", "ResourceQuota") => RESOURCE_QUOTA,
        ("v1", "LimitRange") => LIMIT_RANGE,
        ("rbac.authorization.k8s.io/v1", "Role" | "ClusterRole") => ROLE,
        ("rbac.authorization.k8s.io/v1", "RoleBinding" | "ClusterRoleBinding") => BINDING,
        ("certificates.k8s.io/v1", "CertificateSigningRequest") => SIGNING_REQUEST,
        // Sent in the group of what is deleted.
        (_, "DeleteOptions") => DELETE_OPTIONS,
        ("authorization.k8s.io/v1", "SelfSubjectAccessReview") => ACCESS_REVIEW,
        ("authorization.k8s.io/v1", "SubjectAccessReview" | "LocalSubjectAccessReview") => {
            ACCESS_REVIEW
        }
        ("authorization.k8s.io/v1", "SelfSubjectRulesReview") => RULES_REVIEW,
        ("authentication.k8s.io/v1", "SelfSubjectReview") => &[METADATA],
        ("authentication.k8s.io/v1", "TokenRequest") => TOKEN_REQUEST,
        ("authentication.k8s.io/v1", "TokenReview") => TOKEN_REVIEW,
        _ => return None,
    })
}

// What the server drops anyway (selfLink, managedFields) is not read.
const METADATA: Field = one(
    1,
    "metadata",
    Message(&[
        one(1, "name", Text),
        one(2, "generateName", Text),
        one(3, "namespace", Text),
        one(5, "uid", Text),
        one(6, "resourceVersion", Text),
        one(7, "generation", Number),
        one(8, "creationTimestamp", Time),
        one(9, "deletionTimestamp", Time),
        one(10, "deletionGracePeriodSeconds", Number),
        one(11, "labels", TextMap),
        one(12, "annotations", TextMap),
        many(
            13,
            "ownerReferences",
            Message(&[
                one(1, "kind", Text),
                one(3, "name", Text),
                one(4, "uid", Text),
                one(5, "apiVersion", Text),
                one(6, "controller", Flag),
                one(7, "blockOwnerDeletion", Flag),
            ]),
        ),
        many(14, "finalizers", Text),
    ]),
);

const NAMESPACE: &[Field] = &[
    METADATA,
    one(2, "spec", Message(&[many(1, "finalizers", Text)])),
    one(3, "status", Message(&[one(1, "phase", Text)])),
];

const CONFIG_MAP: &[Field] = &[
    METADATA,
    one(2, "data", TextMap),
    one(3, "binaryData", BytesMap),
    one(4, "immutable", Flag),
];

const SECRET: &[Field] = &[
    METADATA,
    one(2, "data", BytesMap),
    one(3, "type", Text),
    one(4, "stringData", TextMap),
    one(5, "immutable", Flag),
];

/// `resource.Quantity`, which is its text in JSON.
pub(super) const QUANTITY: &[Field] = &[one(1, "text", Text)];

const RESOURCE_QUOTA: &[Field] = &[
    METADATA,
    one(
        2,
        "spec",
        Message(&[
            one(1, "hard", QuantityMap),
            many(2, "scopes", Text),
            one(
                3,
                "scopeSelector",
                Message(&[many(
                    1,
                    "matchExpressions",
                    Message(&[
                        one(1, "scopeName", Text),
                        one(2, "operator", Text),
                        many(3, "values", Text),
                    ]),
                )]),
            ),
        ]),
    ),
];

const LIMIT_RANGE: &[Field] = &[
    METADATA,
    one(
        2,
        "spec",
        Message(&[many(
            1,
            "limits",
            Message(&[
                one(1, "type", Text),
                one(2, "max", QuantityMap),
                one(3, "min", QuantityMap),
                one(4, "default", QuantityMap),
                one(5, "defaultRequest", QuantityMap),
                one(6, "maxLimitRequestRatio", QuantityMap),
            ]),
        )]),
    ),
];

const OBJECT_REFERENCE: &[Field] = &[
    one(1, "kind", Text),
    one(2, "namespace", Text),
    one(3, "name", Text),
    one(4, "uid", Text),
    one(5, "apiVersion", Text),
    one(6, "resourceVersion", Text),
    one(7, "fieldPath", Text),
];

const EVENT: &[Field] = &[
    METADATA,
    one(2, "involvedObject", Message(OBJECT_REFERENCE)),
    one(3, "reason", Text),
    one(4, "message", Text),
    one(
        5,
        "source",
        Message(&[one(1, "component", Text), one(2, "host", Text)]),
    ),
    one(6, "firstTimestamp", Time),
    one(7, "lastTimestamp", Time),
    one(8, "count", Number),
    one(9, "type", Text),
    one(10, "eventTime", MicroTime),
    one(
        11,
        "series",
        Message(&[
            one(1, "count", Number),
            one(2, "lastObservedTime", MicroTime),
        ]),
    ),
    one(12, "action", Text),
    one(13, "related", Message(OBJECT_REFERENCE)),
    one(14, "reportingComponent", Text),
    one(15, "reportingInstance", Text),
];

const DELETE_OPTIONS: &[Field] = &[
    one(1, "gracePeriodSeconds", Number),
    one(
        2,
        "preconditions",
        Message(&[one(1, "uid", Text), one(2, "resourceVersion", Text)]),
    ),
    one(3, "orphanDependents", Flag),
    one(4, "propagationPolicy", Text),
    many(5, "dryRun", Text),
];

// What the server says of the sender (username, uid, groups, extra) is not read.
const SIGNING_REQUEST: &[Field] = &[
    METADATA,
    one(
        2,
        "spec",
        Message(&[
            one(1, "request", Bytes),
            many(5, "usages", Text),
            one(7, "signerName", Text),
            one(8, "expirationSeconds", Number),
        ]),
    ),
    one(
        3,
        "status",
        Message(&[
            many(
                1,
                "conditions",
                Message(&[
                    one(1, "type", Text),
                    one(2, "reason", Text),
                    one(3, "message", Text),
                    one(4, "lastUpdateTime", Time),
                    one(5, "lastTransitionTime", Time),
                    one(6, "status", Text),
                ]),
            ),
            one(2, "certificate", Bytes),
        ]),
    ),
];

const ACCESS_REVIEW: &[Field] = &[
    METADATA,
    one(
        2,
        "spec",
        Message(&[
            one(
                1,
                "resourceAttributes",
                Message(&[
                    one(1, "namespace", Text),
                    one(2, "verb", Text),
                    one(3, "group", Text),
                    one(4, "version", Text),
                    one(5, "resource", Text),
                    one(6, "subresource", Text),
                    one(7, "name", Text),
                ]),
            ),
            one(
                2,
                "nonResourceAttributes",
                Message(&[one(1, "path", Text), one(2, "verb", Text)]),
            ),
            // Of a review that is about somebody else.
            one(3, "user", Text),
            many(4, "groups", Text),
            one(6, "uid", Text),
        ]),
    ),
];

const RULES_REVIEW: &[Field] = &[
    METADATA,
    one(2, "spec", Message(&[one(1, "namespace", Text)])),
];

const TOKEN_REQUEST: &[Field] = &[
    METADATA,
    one(
        2,
        "spec",
        Message(&[
            many(1, "audiences", Text),
            one(
                3,
                "boundObjectRef",
                Message(&[
                    one(1, "kind", Text),
                    one(2, "apiVersion", Text),
                    one(3, "name", Text),
                    one(4, "uid", Text),
                ]),
            ),
            one(4, "expirationSeconds", Number),
        ]),
    ),
];

const TOKEN_REVIEW: &[Field] = &[
    METADATA,
    one(
        2,
        "spec",
        Message(&[one(1, "token", Text), many(2, "audiences", Text)]),
    ),
];

const SERVICE_ACCOUNT: &[Field] = &[
    METADATA,
    many(2, "secrets", Message(OBJECT_REFERENCE)),
    many(3, "imagePullSecrets", Message(&[one(1, "name", Text)])),
    one(4, "automountServiceAccountToken", Flag),
];

const LABEL_SELECTOR: &[Field] = &[
    one(1, "matchLabels", TextMap),
    many(
        2,
        "matchExpressions",
        Message(&[
            one(1, "key", Text),
            one(2, "operator", Text),
            many(3, "values", Text),
        ]),
    ),
];

const ROLE: &[Field] = &[
    METADATA,
    many(
        2,
        "rules",
        Message(&[
            many(1, "verbs", Text),
            many(2, "apiGroups", Text),
            many(3, "resources", Text),
            many(4, "resourceNames", Text),
            many(5, "nonResourceURLs", Text),
        ]),
    ),
    one(
        3,
        "aggregationRule",
        Message(&[many(1, "clusterRoleSelectors", Message(LABEL_SELECTOR))]),
    ),
];

const BINDING: &[Field] = &[
    METADATA,
    many(
        2,
        "subjects",
        Message(&[
            one(1, "kind", Text),
            one(2, "apiGroup", Text),
            one(3, "name", Text),
            one(4, "namespace", Text),
        ]),
    ),
    one(
        3,
        "roleRef",
        Message(&[
            one(1, "apiGroup", Text),
            one(2, "kind", Text),
            one(3, "name", Text),
        ]),
    ),
];
