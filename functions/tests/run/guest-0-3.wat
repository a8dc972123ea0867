;; A WASI 0.3 HTTP component around the core functions that replace MAIN. They must export
;; `handle (param $request i32) (result i32)`, which points to its result, and may call
;;   $respond (result i32)                 an empty 200
;;   $send (pointer, length) (result i32)  what GET http://…/ there is answered
(component
  (import "wasi:http/types@0.3.0" (instance $http
    (export "request" (type $request (sub resource)))
    (export "response" (type $response (sub resource)))
    (export "fields" (type $fields (sub resource)))
    ERROR-CODE
    (export "[constructor]fields" (func (result (own $fields))))
    (export "[static]response.new" (func
      (param "headers" (own $fields)) (param "contents" (option (stream u8)))
      (param "trailers" (future (result (option (own $fields)) (error $code))))
      (result (tuple (own $response) (future (result (error $code)))))))
    (export "request-options" (type $options (sub resource)))
    (type $scheme' (variant (case "HTTP") (case "HTTPS") (case "other" string)))
    (export "scheme" (type $scheme (eq $scheme')))
    (export "[static]request.new" (func
      (param "headers" (own $fields)) (param "contents" (option (stream u8)))
      (param "trailers" (future (result (option (own $fields)) (error $code))))
      (param "options" (option (own $options)))
      (result (tuple (own $request) (future (result (error $code)))))))
    (export "[method]request.set-scheme" (func
      (param "self" (borrow $request)) (param "scheme" (option $scheme)) (result (result))))
    (export "[method]request.set-path-with-query" (func
      (param "self" (borrow $request)) (param "path-with-query" (option string))
      (result (result))))
    (export "[method]request.set-authority" (func
      (param "self" (borrow $request)) (param "authority" (option string)) (result (result))))))
  (alias export $http "request" (type $request))
  (alias export $http "response" (type $response))
  (alias export $http "fields" (type $fields))
  (alias export $http "error-code" (type $code))
  (import "wasi:http/client@0.3.0" (instance $client
    (alias outer 1 $request (type $request-outer))
    (export "request" (type $request (eq $request-outer)))
    (alias outer 1 $response (type $response-outer))
    (export "response" (type $response (eq $response-outer)))
    (alias outer 1 $code (type $code-outer))
    (export "error-code" (type $code (eq $code-outer)))
    (export "send" (func async
      (param "request" (own $request)) (result (result (own $response) (error $code)))))))
  (type $trailers (future (result (option (own $fields)) (error $code))))

  (core module $libc
    (memory (export "memory") 1)
    ;; Texts in errors only, one at a time.
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096)))
  (core instance $libc (instantiate $libc))
  (core func $fields (canon lower (func $http "[constructor]fields")))
  (core func $response (canon lower
    (func $http "[static]response.new") (memory (core memory $libc "memory"))))
  (core func $trailers (canon future.new $trailers))
  (core func $end (canon future.write $trailers async (memory (core memory $libc "memory"))))
  (core func $request (canon lower
    (func $http "[static]request.new") (memory (core memory $libc "memory"))))
  (core func $set-scheme (canon lower
    (func $http "[method]request.set-scheme") (memory (core memory $libc "memory"))))
  (core func $set-path (canon lower
    (func $http "[method]request.set-path-with-query") (memory (core memory $libc "memory"))))
  (core func $set-authority (canon lower
    (func $http "[method]request.set-authority") (memory (core memory $libc "memory"))))
  (core func $client (canon lower (func $client "send")
    (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))

  (core module $main
    (import "libc" "memory" (memory 0))
    (import "host" "fields" (func $fields (result i32)))
    (import "host" "response" (func $response (param i32 i32 i32 i32 i32)))
    (import "host" "trailers" (func $trailers (result i64)))
    (import "host" "end" (func $end (param i32 i32) (result i32)))
    (import "host" "request" (func $request (param i32 i32 i32 i32 i32 i32 i32)))
    (import "host" "set-scheme" (func $set-scheme (param i32 i32 i32 i32 i32) (result i32)))
    (import "host" "set-path" (func $set-path (param i32 i32 i32 i32) (result i32)))
    (import "host" "set-authority" (func $set-authority (param i32 i32 i32 i32) (result i32)))
    (import "host" "client" (func $client (param i32 i32)))

    (func $send (param $authority i32) (param $length i32) (result i32)
      (local $both-ends i64) (local $request i32)
      (local.set $both-ends (call $trailers))
      (call $request (call $fields) (i32.const 0) (i32.const 0)
        (i32.wrap_i64 (local.get $both-ends)) (i32.const 0) (i32.const 0) (i32.const 16))
      (local.set $request (i32.load (i32.const 16)))
      (drop (call $set-scheme (local.get $request)
        (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)))
      (i32.store8 (i32.const 96) (i32.const 47))
      (drop (call $set-path (local.get $request)
        (i32.const 1) (i32.const 96) (i32.const 1)))
      (drop (call $set-authority (local.get $request)
        (i32.const 1) (local.get $authority) (local.get $length)))
      (drop (call $end
        (i32.wrap_i64 (i64.shr_u (local.get $both-ends) (i64.const 32))) (i32.const 64)))
      (call $client (local.get $request) (i32.const 128))
      (i32.const 128))
    (func $respond (result i32)
      (local $both-ends i64)
      (local.set $both-ends (call $trailers))
      (call $response (call $fields) (i32.const 0) (i32.const 0)
        (i32.wrap_i64 (local.get $both-ends)) (i32.const 16))
      ;; No trailers: zeros, read by the host when it gets there.
      (drop (call $end
        (i32.wrap_i64 (i64.shr_u (local.get $both-ends) (i64.const 32))) (i32.const 64)))
      (i32.store (i32.const 40) (i32.load (i32.const 16)))
      (i32.const 32))
    MAIN)
  (core instance $main (instantiate $main
    (with "libc" (instance $libc))
    (with "host" (instance
      (export "fields" (func $fields)) (export "response" (func $response))
      (export "trailers" (func $trailers)) (export "end" (func $end))
      (export "request" (func $request)) (export "set-scheme" (func $set-scheme))
      (export "set-authority" (func $set-authority)) (export "set-path" (func $set-path)) (export "client" (func $client))))))
  (func $handle async
    (param "request" (own $request)) (result (result (own $response) (error $code)))
    (canon lift (core func $main "handle") (memory (core memory $libc "memory"))))
  (instance $handler (export "handle" (func $handle)))
  (export "wasi:http/handler@0.3.0" (instance $handler)))
