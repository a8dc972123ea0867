//! The addresses at which functions and tunnels are reached from outside.

use hive_proto::v1;

use crate::ingress::routes;
use crate::reconcile::schedule::FunctionView;
use crate::state::State;

/// Where the ingress is reached from outside.
pub struct Base<'a> {
    domain: &'a str,
    port: Option<String>,
    tls_port: Option<String>,
}

impl<'a> Base<'a> {
    pub fn of(state: &'a State) -> Self {
        let other_than = |endpoint: Option<&str>, usual: &str| {
            let (_, port) = endpoint?.rsplit_once(':')?;
            (port != usual).then(|| port.to_owned())
        };
        let mut members = state.controllers();
        let first = members.next().map(|(_, member)| &*member.ingress);
        let mut members = state.controllers();
        let first_tls = members.find_map(|(_, member)| member.ingress_tls.as_deref());
        Self {
            domain: routes::domain(state),
            port: other_than(first, "80"),
            tls_port: other_than(first_tls, "443"),
        }
    }

    pub fn url(&self, route: &v1::Route) -> String {
        let v1::Route { host, path, .. } = route;
        match &self.port {
            Some(port) => format!("http://{host}:{port}{path}"),
            None => format!("http://{host}{path}"),
        }
    }

    /// By https.
    pub fn secure_url(&self, route: &v1::Route) -> String {
        let v1::Route { host, path, .. } = route;
        match &self.tls_port {
            Some(port) => format!("https://{host}:{port}{path}"),
            None => format!("https://{host}{path}"),
        }
    }

    /// Where it answers, which the version says that is served.
    pub fn url_of(&self, function: &FunctionView) -> String {
        let key = &function.key;
        let kept = function.course.kept.as_ref();
        let http = kept.map_or(&function.spec.http, |kept| &kept.template.http);
        let routes = routes::routes_of(&key.name, &key.namespace, http, self.domain);
        self.url(&routes[0])
    }
}
