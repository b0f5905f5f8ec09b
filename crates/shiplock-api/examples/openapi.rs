//! Prints the OpenAPI document of REST v1; `cargo xtask codegen` writes it into the tree.

fn main() {
    print!("{}", shiplock_api::openapi::text());
}
