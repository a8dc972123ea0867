;; A WASI 0.3 HTTP component around the core functions that replace MAIN. They must export
;; `handle (param $request i32) (result i32)`, which points to its result, and may call $respond for
;; one that is an empty 200.
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
      (result (tuple (own $response) (future (result (error $code)))))))))
  (alias export $http "request" (type $request))
  (alias export $http "response" (type $response))
  (alias export $http "fields" (type $fields))
  (alias export $http "error-code" (type $code))
  (type $trailers (future (result (option (own $fields)) (error $code))))

  (core module $libc (memory (export "memory") 1))
  (core instance $libc (instantiate $libc))
  (core func $fields (canon lower (func $http "[constructor]fields")))
  (core func $response (canon lower
    (func $http "[static]response.new") (memory (core memory $libc "memory"))))
  (core func $trailers (canon future.new $trailers))
  (core func $end (canon future.write $trailers async (memory (core memory $libc "memory"))))

  (core module $main
    (import "libc" "memory" (memory 0))
    (import "host" "fields" (func $fields (result i32)))
    (import "host" "response" (func $response (param i32 i32 i32 i32 i32)))
    (import "host" "trailers" (func $trailers (result i64)))
    (import "host" "end" (func $end (param i32 i32) (result i32)))

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
      (export "trailers" (func $trailers)) (export "end" (func $end))))))
  (func $handle async
    (param "request" (own $request)) (result (result (own $response) (error $code)))
    (canon lift (core func $main "handle") (memory (core memory $libc "memory"))))
  (instance $handler (export "handle" (func $handle)))
  (export "wasi:http/handler@0.3.0" (instance $handler)))
