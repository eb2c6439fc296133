// Command interop is grpc-go. What it prints is in ../README.md.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	pb "interop/riskdv1"
)

const (
	service = "riskd.v1.OrderRiskService"
	nobody  = "\tno body\r\n\u263a \U0001f608 %41\n"
)

var (
	nextID atomic.Uint64
	conn   *grpc.ClientConn
	orders pb.OrderRiskServiceClient
)

func order() *pb.CheckOrderRequest {
	return &pb.CheckOrderRequest{
		AccountId:     7,
		InstrumentId:  1,
		ClientOrderId: nextID.Add(1),
		Side:          pb.Side_SIDE_BUY,
		OrderType:     pb.OrderType_ORDER_TYPE_LIMIT,
		PriceTicks:    120_000,
		QuantityLots:  1,
		GatewayId:     3,
	}
}

// accepted returns the reservation of an accepted order.
func accepted(reply *pb.CheckOrderResponse) (uint64, error) {
	if reply.GetDecision() != pb.Decision_DECISION_ACCEPTED || reply.GetReservationId() == 0 {
		return 0, fmt.Errorf("not accepted: %v", reply)
	}
	return reply.GetReservationId(), nil
}

func expectCode(err error, wanted ...codes.Code) error {
	for _, code := range wanted {
		if status.Code(err) == code {
			return nil
		}
	}
	return fmt.Errorf("%v, not %v", err, wanted)
}

func minute() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), time.Minute)
}

func check(ctx context.Context, request *pb.CheckOrderRequest) (*pb.CheckOrderResponse, error) {
	reply, err := orders.CheckOrder(ctx, request)
	if err != nil {
		return nil, err
	}
	_, err = accepted(reply)
	return reply, err
}

func unary() error {
	ctx, cancel := minute()
	defer cancel()
	_, err := check(ctx, order())
	return err
}

func twice(second context.Context, first context.Context) error {
	request := order()
	one, err := check(first, request)
	if err != nil {
		return err
	}
	two, err := check(second, request)
	if err == nil && !proto.Equal(one, two) {
		err = fmt.Errorf("%v, then %v", one, two)
	}
	return err
}

func repeat() error {
	ctx, cancel := minute()
	defer cancel()
	return twice(ctx, ctx)
}

func withMetadata() error {
	ctx, cancel := minute()
	defer cancel()
	return twice(metadata.AppendToOutgoingContext(ctx, "x-text", "interop", "x-raw-bin", "\x00\xff\x80"), ctx)
}

func batch() error {
	ctx, cancel := minute()
	defer cancel()
	request := &pb.BatchCheckOrdersRequest{}
	for range 64 {
		request.Orders = append(request.Orders, order())
	}
	reply, err := orders.BatchCheckOrders(ctx, request)
	if err != nil {
		return err
	}
	if len(reply.GetDecisions()) != 64 {
		return fmt.Errorf("%d decisions", len(reply.GetDecisions()))
	}
	for _, decision := range reply.GetDecisions() {
		if _, err := accepted(decision); err != nil {
			return err
		}
	}
	return nil
}

func details() error {
	ctx, cancel := minute()
	defer cancel()
	_, err := orders.BatchCheckOrders(ctx, &pb.BatchCheckOrdersRequest{})
	if wrong := expectCode(err, codes.InvalidArgument); wrong != nil {
		return wrong
	}
	for _, detail := range status.Convert(err).Details() {
		info, ok := detail.(*errdetails.ErrorInfo)
		if ok && info.GetDomain() == "riskd" && info.GetReason() == "REQUEST_MALFORMED" {
			return nil
		}
	}
	return fmt.Errorf("details %v", status.Convert(err).Details())
}

func large() error {
	ctx, cancel := minute()
	defer cancel()
	request := &pb.BatchCheckOrdersRequest{}
	one := order()
	for range (1 << 20) / 25 {
		request.Orders = append(request.Orders, one)
	}
	_, err := orders.BatchCheckOrders(ctx, request)
	if wrong := expectCode(err, codes.ResourceExhausted, codes.InvalidArgument); wrong != nil {
		return wrong
	}
	return unary()
}

func unimplemented() error {
	ctx, cancel := minute()
	defer cancel()
	for _, method := range []string{"/" + service + "/Nothing", "/nobody.Nothing/Nothing"} {
		err := conn.Invoke(ctx, method, &emptypb.Empty{}, &emptypb.Empty{})
		if wrong := expectCode(err, codes.Unimplemented); wrong != nil {
			return wrong
		}
	}
	return nil
}

func deadline() error {
	if err := unary(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	call, err := orders.StreamOrders(ctx)
	if err != nil {
		return err
	}
	_, err = call.Recv()
	return expectCode(err, codes.DeadlineExceeded)
}

func send(call pb.OrderRiskService_StreamOrdersClient) error {
	return call.Send(&pb.StreamOrdersRequest{Request: &pb.StreamOrdersRequest_Order{Order: order()}})
}

func cancelled() error {
	ctx, cancel := minute()
	defer cancel()
	call, err := orders.StreamOrders(ctx)
	if err != nil {
		return err
	}
	if err := send(call); err != nil {
		return err
	}
	reply, err := call.Recv()
	if err != nil {
		return err
	}
	if _, err := accepted(reply.GetOrder()); err != nil {
		return err
	}
	cancel()
	_, err = call.Recv()
	if wrong := expectCode(err, codes.Canceled); wrong != nil {
		return wrong
	}
	return unary()
}

func stream() error {
	ctx, cancel := minute()
	defer cancel()
	call, err := orders.StreamOrders(ctx)
	if err != nil {
		return err
	}
	go func() {
		for range 1000 {
			if send(call) != nil {
				return // Recv has the reason.
			}
		}
		_ = call.CloseSend()
	}()
	last := uint64(0)
	for replies := 0; ; replies++ {
		reply, err := call.Recv()
		if errors.Is(err, io.EOF) {
			if replies != 1000 {
				return fmt.Errorf("%d replies", replies)
			}
			return nil
		}
		if err != nil {
			return err
		}
		reservation, err := accepted(reply.GetOrder())
		if err != nil {
			return err
		}
		if reservation <= last {
			return fmt.Errorf("reservation %d after %d", reservation, last)
		}
		last = reservation
	}
}

func health() error {
	ctx, cancel := minute()
	defer cancel()
	client := healthpb.NewHealthClient(conn)
	for _, name := range []string{"", service} {
		reply, err := client.Check(ctx, &healthpb.HealthCheckRequest{Service: name})
		if err != nil {
			return err
		}
		if reply.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			return fmt.Errorf("%q: %v", name, reply.GetStatus())
		}
	}
	_, err := client.Check(ctx, &healthpb.HealthCheckRequest{Service: nobody})
	if wrong := expectCode(err, codes.NotFound); wrong != nil {
		return wrong
	}
	if found := status.Convert(err).Message(); found != "service "+nobody+" is unknown" {
		return fmt.Errorf("%q", found)
	}
	return nil
}

func concurrent() error {
	ctx, cancel := minute()
	defer cancel()
	calls, err := strconv.Atoi(os.Getenv("INTEROP_CALLS"))
	if err != nil {
		return err
	}
	var (
		left  atomic.Int64
		lock  sync.Mutex
		wait  sync.WaitGroup
		first error
		seen  = map[uint64]bool{}
	)
	left.Store(int64(calls))
	for range 64 {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for left.Add(-1) >= 0 {
				reply, err := check(ctx, order())
				lock.Lock()
				if err != nil && first == nil {
					first = err
				}
				seen[reply.GetReservationId()] = true
				lock.Unlock()
			}
		}()
	}
	wait.Wait()
	if first == nil && len(seen) != calls {
		first = fmt.Errorf("%d reservations", len(seen))
	}
	return first
}

func transport() (credentials.TransportCredentials, error) {
	path, secure := os.LookupEnv("INTEROP_CA")
	if !secure {
		return insecure.NewCredentials(), nil
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "localhost"}
	config.RootCAs.AppendCertsFromPEM(pem)
	if path, given := os.LookupEnv("INTEROP_CERTIFICATE"); given {
		pair, err := tls.LoadX509KeyPair(path, os.Getenv("INTEROP_KEY"))
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return credentials.NewTLS(config), nil
}

func run() error {
	first, err := strconv.ParseUint(os.Getenv("INTEROP_FIRST_ID"), 10, 64)
	if err != nil {
		return err
	}
	nextID.Store(first)
	security, err := transport()
	if err != nil {
		return err
	}
	conn, err = grpc.NewClient(os.Getenv("INTEROP_ADDRESS"), grpc.WithTransportCredentials(security))
	if err != nil {
		return err
	}
	defer conn.Close()
	orders = pb.NewOrderRiskServiceClient(conn)
	for _, each := range []struct {
		name string
		run  func() error
	}{
		{"unary", unary},
		{"repeat", repeat},
		{"metadata", withMetadata},
		{"batch", batch},
		{"details", details},
		{"large", large},
		{"unimplemented", unimplemented},
		{"deadline", deadline},
		{"cancel", cancelled},
		{"stream", stream},
		{"health", health},
		{"concurrent", concurrent},
	} {
		if err := each.run(); err != nil {
			fmt.Printf("%s\tFAIL\t%q\n", each.name, err)
		} else {
			fmt.Printf("%s\tok\n", each.name)
		}
	}
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
