//! Pulling the components of functions that name an image, once for each value of the name.

mod plan;
mod run;

pub use run::Pulls;

/// The condition of a function that names an image, and why it is False: the kubelet's words where
/// it has them.
pub const CONDITION: &str = "Pulled";
pub const PULLING: &str = "Pulling";
pub const FAILED: &str = "ErrImagePull";
/// It failed more than once, and is tried again in a while.
pub const BACK_OFF: &str = "ImagePullBackOff";
pub const UNAUTHORIZED: &str = "Unauthorized";
pub const INVALID_NAME: &str = "InvalidImageName";
pub const INVALID_COMPONENT: &str = "InvalidComponent";
pub const REASONS: [&str; 6] = [
    PULLING,
    FAILED,
    BACK_OFF,
    UNAUTHORIZED,
    INVALID_NAME,
    INVALID_COMPONENT,
];
