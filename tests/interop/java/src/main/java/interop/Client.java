package interop;

import com.google.rpc.ErrorInfo;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.ClientResponseObserver;
import io.grpc.stub.MetadataUtils;
import java.io.File;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import riskd.v1.OrderRiskServiceGrpc;
import riskd.v1.OrderRiskServiceOuterClass.BatchCheckOrdersRequest;
import riskd.v1.OrderRiskServiceOuterClass.CheckOrderRequest;
import riskd.v1.OrderRiskServiceOuterClass.CheckOrderResponse;
import riskd.v1.OrderRiskServiceOuterClass.StreamOrdersRequest;
import riskd.v1.OrderRiskServiceOuterClass.StreamOrdersResponse;
import riskd.v1.Types.Decision;
import riskd.v1.Types.OrderType;
import riskd.v1.Types.Side;

/** grpc-java. What it prints is in ../README.md. */
public final class Client {
  private static final String SERVICE = "riskd.v1.OrderRiskService";
  private static final String NOBODY = "\tno body\r\n\u263a \ud83d\ude08 %41\n";

  private static final AtomicLong NEXT_ID = new AtomicLong();
  private static ManagedChannel channel;

  private interface Case {
    void run() throws Exception;
  }

  private static CheckOrderRequest.Builder order() {
    return CheckOrderRequest.newBuilder()
        .setAccountId(7)
        .setInstrumentId(1)
        .setClientOrderId(NEXT_ID.getAndIncrement())
        .setSide(Side.SIDE_BUY)
        .setOrderType(OrderType.ORDER_TYPE_LIMIT)
        .setPriceTicks(120_000)
        .setQuantityLots(1)
        .setGatewayId(3);
  }

  private static OrderRiskServiceGrpc.OrderRiskServiceBlockingStub orders() {
    return OrderRiskServiceGrpc.newBlockingStub(channel).withDeadlineAfter(1, TimeUnit.MINUTES);
  }

  private static void expect(boolean holds, Object why) {
    if (!holds) {
      throw new IllegalStateException(String.valueOf(why));
    }
  }

  private static long accepted(CheckOrderResponse reply) {
    expect(reply.getDecision() == Decision.DECISION_ACCEPTED, reply);
    expect(reply.getReservationId() != 0, reply);
    return reply.getReservationId();
  }

  private static StatusRuntimeException failure(Case call, Status.Code... codes) throws Exception {
    try {
      call.run();
    } catch (StatusRuntimeException error) {
      expect(List.of(codes).contains(error.getStatus().getCode()), error);
      return error;
    }
    throw new IllegalStateException("OK");
  }

  private static void unary() {
    accepted(orders().checkOrder(order().build()));
  }

  private static void repeat() {
    CheckOrderRequest request = order().build();
    CheckOrderResponse first = orders().checkOrder(request);
    accepted(first);
    expect(orders().checkOrder(request).equals(first), "another reply");
  }

  private static void metadata() {
    CheckOrderRequest request = order().build();
    CheckOrderResponse first = orders().checkOrder(request);
    Metadata headers = new Metadata();
    headers.put(Metadata.Key.of("x-text", Metadata.ASCII_STRING_MARSHALLER), "interop");
    headers.put(
        Metadata.Key.of("x-raw-bin", Metadata.BINARY_BYTE_MARSHALLER),
        new byte[] {0, (byte) 0xff, (byte) 0x80});
    var stub = orders().withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers));
    expect(stub.checkOrder(request).equals(first), "another reply");
  }

  private static void batch() {
    var request = BatchCheckOrdersRequest.newBuilder();
    for (int index = 0; index < 64; index++) {
      request.addOrders(order());
    }
    var decisions = orders().batchCheckOrders(request.build()).getDecisionsList();
    expect(decisions.stream().map(Client::accepted).distinct().count() == 64, decisions.size());
  }

  private static void details() throws Exception {
    var nothing = BatchCheckOrdersRequest.getDefaultInstance();
    var error = failure(() -> orders().batchCheckOrders(nothing), Status.Code.INVALID_ARGUMENT);
    var status = StatusProto.fromThrowable(error);
    expect(status.getDetailsCount() == 1, status);
    ErrorInfo info = status.getDetails(0).unpack(ErrorInfo.class);
    expect(info.getDomain().equals("riskd"), info);
    expect(info.getReason().equals("REQUEST_MALFORMED"), info);
  }

  private static void large() throws Exception {
    CheckOrderRequest one = order().build();
    var request = BatchCheckOrdersRequest.newBuilder();
    for (int index = 0; index < (1 << 20) / 25; index++) {
      request.addOrders(one);
    }
    failure(
        () -> orders().batchCheckOrders(request.build()),
        Status.Code.RESOURCE_EXHAUSTED,
        Status.Code.INVALID_ARGUMENT);
    unary();
  }

  private static void unimplemented() throws Exception {
    for (String name : List.of(SERVICE + "/Nothing", "nobody.Nothing/Nothing")) {
      MethodDescriptor<CheckOrderRequest, CheckOrderResponse> method =
          OrderRiskServiceGrpc.getCheckOrderMethod().toBuilder().setFullMethodName(name).build();
      CallOptions options = CallOptions.DEFAULT.withDeadlineAfter(1, TimeUnit.MINUTES);
      failure(
          () -> ClientCalls.blockingUnaryCall(channel, method, options, order().build()),
          Status.Code.UNIMPLEMENTED);
    }
  }

  /** A stream of orders: what came, then an exception, or END. */
  private static final class Stream
      implements ClientResponseObserver<StreamOrdersRequest, StreamOrdersResponse> {
    private static final Object END = new Object();

    private final BlockingQueue<Object> events = new LinkedBlockingQueue<>();
    private ClientCallStreamObserver<StreamOrdersRequest> requests;

    Stream(long limitMs) {
      OrderRiskServiceGrpc.newStub(channel)
          .withDeadlineAfter(limitMs, TimeUnit.MILLISECONDS)
          .streamOrders(this);
    }

    @Override
    public void beforeStart(ClientCallStreamObserver<StreamOrdersRequest> stream) {
      requests = stream;
    }

    @Override
    public void onNext(StreamOrdersResponse reply) {
      events.add(reply);
    }

    @Override
    public void onError(Throwable error) {
      events.add(error);
    }

    @Override
    public void onCompleted() {
      events.add(END);
    }

    void send() {
      requests.onNext(StreamOrdersRequest.newBuilder().setOrder(order()).build());
    }

    Object next() throws InterruptedException {
      return events.poll(1, TimeUnit.MINUTES);
    }

    void expectEnd(Status.Code code) throws InterruptedException {
      Object event = next();
      expect(event instanceof Throwable error && Status.fromThrowable(error).getCode() == code, event);
    }
  }

  private static void deadline() throws Exception {
    unary();
    new Stream(200).expectEnd(Status.Code.DEADLINE_EXCEEDED);
  }

  private static void cancel() throws Exception {
    Stream stream = new Stream(60_000);
    stream.send();
    Object first = stream.next();
    expect(first instanceof StreamOrdersResponse, first);
    accepted(((StreamOrdersResponse) first).getOrder());
    stream.requests.cancel("enough", null);
    stream.expectEnd(Status.Code.CANCELLED);
    unary();
  }

  private static void stream() throws Exception {
    Stream stream = new Stream(60_000);
    for (int index = 0; index < 1000; index++) {
      stream.send();
    }
    stream.requests.onCompleted();
    long last = 0;
    int count = 0;
    Object event;
    while ((event = stream.next()) instanceof StreamOrdersResponse reply) {
      long reservation = accepted(reply.getOrder());
      expect(reservation > last, reservation + " after " + last);
      last = reservation;
      count++;
    }
    expect(event == Stream.END, event);
    expect(count == 1000, count + " replies");
  }

  private static void health() throws Exception {
    var stub = HealthGrpc.newBlockingStub(channel).withDeadlineAfter(1, TimeUnit.MINUTES);
    for (String service : List.of("", SERVICE)) {
      var reply = stub.check(HealthCheckRequest.newBuilder().setService(service).build());
      expect(reply.getStatus() == HealthCheckResponse.ServingStatus.SERVING, reply);
    }
    var nobody = HealthCheckRequest.newBuilder().setService(NOBODY).build();
    var status = failure(() -> stub.check(nobody), Status.Code.NOT_FOUND).getStatus();
    expect(("service " + NOBODY + " is unknown").equals(status.getDescription()), status);
  }

  private static void concurrent() throws Exception {
    int calls = Integer.parseInt(System.getenv("INTEROP_CALLS"));
    AtomicLong left = new AtomicLong(calls);
    Set<Long> seen = ConcurrentHashMap.newKeySet();
    ExecutorService threads = Executors.newFixedThreadPool(64);
    List<Future<?>> loops = new ArrayList<>();
    for (int index = 0; index < 64; index++) {
      loops.add(
          threads.submit(
              () -> {
                while (left.decrementAndGet() >= 0) {
                  seen.add(accepted(orders().checkOrder(order().build())));
                }
              }));
    }
    try {
      for (Future<?> loop : loops) {
        loop.get();
      }
    } finally {
      threads.shutdownNow();
    }
    expect(seen.size() == calls, seen.size() + " reservations");
  }

  private static ChannelCredentials credentials() throws Exception {
    String ca = System.getenv("INTEROP_CA");
    if (ca == null) {
      return InsecureChannelCredentials.create();
    }
    var tls = TlsChannelCredentials.newBuilder().trustManager(new File(ca));
    String certificate = System.getenv("INTEROP_CERTIFICATE");
    if (certificate != null) {
      tls.keyManager(new File(certificate), new File(System.getenv("INTEROP_KEY")));
    }
    return tls.build();
  }

  private static void report(String name, Case run) {
    try {
      run.run();
      System.out.println(name + "\tok");
    } catch (Exception error) {
      System.out.println(name + "\tFAIL\t" + error.toString().replaceAll("\\s+", " "));
    }
  }

  public static void main(String[] arguments) throws Exception {
    NEXT_ID.set(Long.parseLong(System.getenv("INTEROP_FIRST_ID")));
    var builder = Grpc.newChannelBuilder(System.getenv("INTEROP_ADDRESS"), credentials());
    if (System.getenv("INTEROP_CA") != null) {
      builder.overrideAuthority("localhost");
    }
    channel = builder.build();
    report("unary", Client::unary);
    report("repeat", Client::repeat);
    report("metadata", Client::metadata);
    report("batch", Client::batch);
    report("details", Client::details);
    report("large", Client::large);
    report("unimplemented", Client::unimplemented);
    report("deadline", Client::deadline);
    report("cancel", Client::cancel);
    report("stream", Client::stream);
    report("health", Client::health);
    report("concurrent", Client::concurrent);
    channel.shutdownNow();
  }
}
