// The contract by grpc-go and pgx: a pool of connections, one statement a call, no checks, no retries, no deadlines.
//
// `peer URL` serves GetCourse and CreateCourse until it is ended, and prints its port.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	coursev1 "course.example.com/course/v1"
)

// As many as the other peers have.
const connections = 8

const columns = "uid, course_id, title, code, description, owner, language_code, subjects, labels, external_ids, state," +
	" create_time, update_time, revision"

const get = "SELECT uid::text, course_id, title, code, description, owner, language_code, subjects, labels, external_ids," +
	" state, create_time, update_time FROM courses WHERE course_id = $1"

const create = "INSERT INTO courses (" + columns +
	") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"

type server struct {
	coursev1.UnimplementedCourseServiceServer
	pool *pgxpool.Pool
}

func (s *server) GetCourse(ctx context.Context, request *coursev1.GetCourseRequest) (*coursev1.Course, error) {
	course := &coursev1.Course{}
	var courseID, state string
	var created, updated time.Time
	row := s.pool.QueryRow(ctx, get, strings.TrimPrefix(request.Name, "courses/"))
	err := row.Scan(&course.Uid, &courseID, &course.Title, &course.Code, &course.Description, &course.Owner,
		&course.LanguageCode, &course.Subjects, &course.Labels, &course.ExternalIds, &state, &created, &updated)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, status.Error(codes.NotFound, "no such course")
	}
	if err != nil {
		return nil, err
	}
	course.Name = "courses/" + courseID
	course.State = coursev1.Course_State(coursev1.Course_State_value[state])
	course.CreateTime, course.UpdateTime = timestamppb.New(created), timestamppb.New(updated)
	return course, nil
}

func (s *server) CreateCourse(ctx context.Context, request *coursev1.CreateCourseRequest) (*coursev1.Course, error) {
	course, uid, now := request.Course, uuid.NewString(), time.Now().UTC().Truncate(time.Microsecond)
	_, err := s.pool.Exec(ctx, create, uid, uid, course.Title, course.Code, course.Description, course.Owner,
		course.LanguageCode, course.Subjects, course.Labels, map[string]string{}, "DRAFT", now, now, 1)
	if err != nil {
		return nil, err
	}
	course.Name, course.Uid, course.State = "courses/"+uid, uid, coursev1.Course_DRAFT
	course.CreateTime, course.UpdateTime = timestamppb.New(now), timestamppb.New(now)
	return course, nil
}

func main() {
	config, err := pgxpool.ParseConfig(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	config.MinConns, config.MaxConns = connections, connections
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	grpcServer := grpc.NewServer()
	coursev1.RegisterCourseServiceServer(grpcServer, &server{pool: pool})
	fmt.Fprintf(os.Stderr, "gRPC on port %d, serving\n", listener.Addr().(*net.TCPAddr).Port)
	log.Fatal(grpcServer.Serve(listener))
}
